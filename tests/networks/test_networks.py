"""Every network keeps its shapes, reads its condition, and treats each example alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from instances import CONDITION, NETWORKS, double, without_gradient
from tightbound.networks import (
    ACTIVATIONS,
    MLP,
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    Linear,
    LinearWithConstant,
)
from tightbound.runtime.processor import matrix_library


@pytest.fixture(params=[0, CONDITION], ids=["no-condition", "condition"])
def condition_dim(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.mark.parametrize("name", NETWORKS)
class TestEveryNetwork:
    def test_shape_and_examples_alone(self, name: str, condition_dim: int) -> None:
        make, inputs, outputs = NETWORKS[name]
        network, x = make(condition_dim).double(), double(5, *inputs)
        given = [x, double(5, condition_dim)] if condition_dim else [x]
        out = network(*given)
        assert out.shape == (5, *outputs)
        one = network(*[value[2:3] for value in given])
        torch.testing.assert_close(one, out[2:3], rtol=1e-10, atol=1e-12)

    def test_every_input_matters(self, name: str, condition_dim: int) -> None:
        make, inputs, _ = NETWORKS[name]
        network = make(condition_dim).double()
        given = [double(2, *inputs), *([double(2, condition_dim)] if condition_dim else [])]
        for value in given:
            value.requires_grad_()
        network(*given).square().sum().backward()
        for value in given:
            assert value.grad is not None
            assert (value.grad != 0).all()

    def test_gradient_reaches_every_parameter(self, name: str, condition_dim: int) -> None:
        make, inputs, _ = NETWORKS[name]
        network = make(condition_dim).double()
        given = [double(5, *inputs), *([double(5, condition_dim)] if condition_dim else [])]
        network(*given).square().sum().backward()
        assert without_gradient(network) == []

    def test_float32(self, name: str, condition_dim: int) -> None:
        make, inputs, _ = NETWORKS[name]
        given = [torch.randn(5, *inputs), *([torch.randn(5, condition_dim)] if condition_dim else [])]
        assert make(condition_dim)(*given).dtype == torch.float32


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    assert MLP(3, 2, (4,), activation)(torch.zeros(5, 3)).shape == (5, 2)
    assert ConvolutionalEncoder((1, 8, 8), 2, (4,), 4, activation)(torch.zeros(5, 1, 8, 8)).shape == (5, 2)
    assert ConvolutionalDecoder(2, (1, 8, 8), (4,), 4, activation)(torch.zeros(5, 2)).shape == (5, 1, 8, 8)


def test_an_mlp_is_its_equation() -> None:
    network = MLP(3, 2, (4,), "tanh").double()
    first, last = [m for m in network.modules() if isinstance(m, nn.Linear)]
    x = double(5, 3)
    expected = torch.tanh(x @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(network(x), expected)


def test_an_mlp_without_hidden_layers_is_linear() -> None:
    network, a, b = MLP(3, 2, ()).double(), double(5, 3), double(5, 3)
    torch.testing.assert_close(network((a + b) / 2), (network(a) + network(b)) / 2)


def test_the_constant_is_constant_and_learned() -> None:
    network = LinearWithConstant((1, 2, 2), 3).double()
    out = network(double(5, 1, 2, 2))
    assert (out[:, 3:] == network.constant).all()
    out.square().sum().backward()
    assert without_gradient(network) == ["constant"]  # it starts at zero, where its square is flat
    out = network(double(5, 1, 2, 2))
    out.sum().backward()
    assert without_gradient(network) == []


def test_a_convolutional_network_halves_while_it_can() -> None:
    encoder = ConvolutionalEncoder((1, 28, 28), 2, (8, 16, 32, 64, 128))
    strides = [m.stride[0] for m in encoder.grid if isinstance(m, nn.Conv2d)]
    assert math.prod(strides) == 16  # 28 -> 14 -> 7 -> 4 -> 2


@pytest.fixture(params=["torch", "onednn"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Either choice of a library, on any processor."""
    monkeypatch.setenv("TIGHTBOUND_MATRICES", request.param)
    matrix_library.cache_clear()
    yield request.param
    matrix_library.cache_clear()


@pytest.mark.parametrize("leading", [(2048,), (8, 256)])
def test_large_products_equal_torchs(leading: tuple[int, ...], library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradients, whichever library multiplies."""
    ours, theirs = Linear(64, 48), nn.Linear(64, 48)
    theirs.load_state_dict(ours.state_dict())
    x, upstream = torch.randn(*leading, 64), torch.randn(*leading, 48)
    calls: list[int] = []
    monkeypatch.setattr(torch.Tensor, "to_mkldnn", counted(torch.Tensor.to_mkldnn, calls))
    found = []
    for layer in (ours, theirs):
        inputs = x.clone().requires_grad_()
        y = layer(inputs)
        (y * upstream).sum().backward()
        found.append((y.detach(), inputs.grad, layer.weight.grad, layer.bias.grad))
    assert bool(calls) == (library == "onednn")
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def counted(function: Callable[..., torch.Tensor], calls: list[int]) -> Callable[..., torch.Tensor]:
    def called(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return function(*arguments)

    return called


@pytest.mark.usefixtures("library")
def test_everything_else_is_torchs_own_layer() -> None:
    layer, x = Linear(64, 48), torch.randn(2048, 64)
    expected = nn.functional.linear(x, layer.weight, layer.bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert torch.equal(layer.double()(x.double()).float().isfinite(), expected.isfinite())
    layer = layer.float()
    vmapped = torch.func.vmap(layer)(x.reshape(2, 1024, 64))
    torch.testing.assert_close(vmapped.reshape(2048, 48), expected)
    assert isinstance(layer, nn.Linear)
    assert set(layer.state_dict()) == {"weight", "bias"}


@pytest.mark.usefixtures("library")
def test_gradients_of_gradients_survive_large_products() -> None:
    """A gradient penalty through a layer large enough for oneDNN."""
    found = []
    for layer in (ours := Linear(64, 64), theirs := nn.Linear(64, 64)):
        theirs.load_state_dict(ours.state_dict())
        x = torch.linspace(-1, 1, 1024 * 64).reshape(1024, 64).requires_grad_()
        (slope,) = torch.autograd.grad(layer(layer(x).tanh()).square().sum(), x, create_graph=True)
        slope.square().mean().backward()
        found.append(layer.weight.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)
