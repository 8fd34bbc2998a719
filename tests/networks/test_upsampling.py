"""Doubling a grid: the resize-convolution is what it says, and leaves no checkerboard."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from instances import double
from tightbound.networks import UPSAMPLINGS, ConvolutionalDecoder, EdgeConvolution, GridDecoder, ResizeConvolution

SIDES = [(1, 1), (1, 5), (2, 2), (7, 4)]


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("kind", UPSAMPLINGS)
def test_a_grid_is_doubled(kind: str, sides: tuple[int, int]) -> None:
    layer, x = UPSAMPLINGS[kind].double(3, 5).double(), double(2, 3, *sides).requires_grad_()
    y = layer(x)
    assert y.shape == (2, 5, 2 * sides[0], 2 * sides[1])
    y.square().sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).all()
    assert all(p.grad is not None and (p.grad != 0).any() for p in layer.parameters())


@pytest.mark.parametrize("sides", SIDES)
def test_a_resize_convolution_is_a_convolution_of_repeated_pixels(sides: tuple[int, int]) -> None:
    layer, x = ResizeConvolution(3, 5).double(), double(2, 3, *sides)
    repeated = F.pad(x.repeat_interleave(2, -1).repeat_interleave(2, -2), (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(layer(x), F.conv2d(repeated, layer.weight, layer.bias))


@pytest.mark.parametrize("sides", SIDES)
def test_an_edge_convolution_repeats_the_border(sides: tuple[int, int]) -> None:
    layer, x = EdgeConvolution(3, 5).double(), double(2, 3, *sides)
    repeated = F.pad(x, (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(layer(x), F.conv2d(repeated, layer.weight, layer.bias))


def checkerboard(y: torch.Tensor) -> float:
    """Of a surface that should be even, the largest difference."""
    return (y - y.mean((-2, -1), keepdim=True)).abs().max().item()


def test_an_even_surface_stays_even_but_for_transposed_convolutions() -> None:
    even = double(2, 6, 1, 1).expand(-1, -1, 8, 8)
    for layer in UPSAMPLINGS["resize"]:
        assert checkerboard(layer(6, 4).double()(even)) < 1e-12  # to the border
    y = UPSAMPLINGS["transposed"].double(6, 4).double()(even)
    assert checkerboard(y[..., 2:-2, 2:-2]) > 1e-2


@pytest.mark.parametrize(
    "decoder",
    [
        lambda kind: ConvolutionalDecoder(4, (3, 32, 32), upsampling=kind),
        lambda kind: GridDecoder(4, (3, 32, 32), upsampling=kind),
    ],
    ids=["convolutional", "grid"],
)
def test_a_new_decoder_leaves_no_checkerboard(decoder: type[nn.Module]) -> None:
    """Energy of its picture at a period of two pixels, over that at periods nearby."""
    found = dict[str, float]()
    for kind in UPSAMPLINGS:
        torch.manual_seed(0)
        network = decoder(kind).double()
        z = double(20, 4) if isinstance(network, ConvolutionalDecoder) else double(20, 4, 1, 1).expand(-1, -1, 8, 8)
        y = network(z).detach()
        energy = torch.fft.fft2(y - y.mean((-2, -1), keepdim=True)).abs().square().mean((0, 1))
        lines = energy.sum(0) + energy.sum(1)
        found[kind] = (lines[16] / lines[13:16].mean()).item()
    assert found["resize"] < 1.2
    assert found["transposed"] > 2
