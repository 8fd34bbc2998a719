"""Networks of diffusion: shapes, what reaches the output, and that examples stay apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tightbound.errors import UsageError
from tightbound.networks.denoising import LevelFeatures, UNet, VectorDenoiser
from tightbound.networks.dit import DiT, positions

Network = Callable[..., Tensor]


def vectors(**options: Any) -> VectorDenoiser:
    return VectorDenoiser(6, hidden=16, blocks=2, **options)


def images(**options: int) -> UNet:
    return UNet((2, 8, 12), channels=(8, 16, 16), blocks=1, heads=2, **options)


def patched(**options: int) -> UNet:
    return UNet((1, 8, 8), channels=(8,), blocks=2, patch=2, heads=0, **options)


def transformer(**options: int) -> DiT:
    return DiT((2, 4, 6), width=16, depth=2, heads=2, **options)


SHAPES = {
    "transformer": (transformer, (2, 4, 6)),
    "vectors": (vectors, (6,)),
    "images": (images, (2, 8, 12)),
    "patched": (patched, (1, 8, 8)),
}


def stirred(make: Callable[..., nn.Module], **options: int) -> nn.Module:
    """A network with random weights everywhere, also where it starts at zero."""
    torch.manual_seed(0)
    network = make(**options).double().eval()
    for p in network.parameters():
        nn.init.normal_(p, std=0.3)
    return network


@pytest.mark.parametrize("name", SHAPES)
def test_it_starts_at_zero_and_all_weights_can_learn(name: str) -> None:
    make, shape = SHAPES[name]
    z, gamma = torch.randn(5, *shape), torch.linspace(-10, 5, 5)
    assert torch.equal(make()(z, gamma), torch.zeros(5, *shape))
    network = stirred(make, condition_dim=3)
    network(z.double(), gamma.double(), torch.randn(5, 3, dtype=torch.float64)).square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


@pytest.mark.parametrize("name", SHAPES)
def test_level_and_condition_reach_the_output_of_their_example_only(name: str) -> None:
    make, shape = SHAPES[name]
    network = stirred(make, condition_dim=3)
    z, gamma, c = (torch.randn(4, *s, dtype=torch.float64) for s in (shape, (), (3,)))
    found = network(z, gamma, c)
    for changed in ((z + 1, gamma, c), (z, gamma + 1, c), (z, gamma, c + 1)):
        mixed = [torch.cat([new[:1], old[1:]]) for new, old in zip(changed, (z, gamma, c), strict=True)]
        other = network(*mixed)
        assert not torch.allclose(other[0], found[0])
        torch.testing.assert_close(other[1:], found[1:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", SHAPES)
def test_pure_noise_is_a_level_like_others(name: str) -> None:
    make, shape = SHAPES[name]
    found = stirred(make)(torch.randn(2, *shape, dtype=torch.float64), torch.full((2,), torch.inf, dtype=torch.float64))
    assert found.isfinite().all()


def test_every_pixel_sees_every_other_through_the_coarsest_grid() -> None:
    network, z = stirred(images), torch.randn(1, 2, 8, 12, dtype=torch.float64)
    z.requires_grad_()
    network(z, torch.zeros(1, dtype=torch.float64))[0, 0, 0, 0].backward()
    assert z.grad is not None
    assert (z.grad != 0).all()


def test_dropout_acts_in_training_only() -> None:
    network = UNet((1, 8, 8), channels=(8,), blocks=1, dropout=0.5, heads=0)
    for p in network.parameters():
        nn.init.normal_(p, std=0.3)
    z, gamma = torch.randn(2, 1, 8, 8), torch.zeros(2)
    assert not torch.equal(network(z, gamma), network(z, gamma))
    network.eval()
    assert torch.equal(network(z, gamma), network(z, gamma))


def test_near_levels_have_near_features_and_far_ones_do_not() -> None:
    torch.manual_seed(0)
    features = LevelFeatures(32)
    base, near, far = features(torch.tensor([-3.0, -3.001, 3.0])).detach()
    assert (base - near).norm() < 0.02 * (base - far).norm()


@pytest.mark.parametrize(
    "make",
    [
        lambda: UNet((1, 28, 28), channels=(8, 8, 8, 8)),
        lambda: UNet((1, 9, 9), channels=(8,), patch=2),
        lambda: UNet((12,), channels=(8,)),
        lambda: UNet((1, 8, 8), channels=(8, 9), heads=4),
        lambda: DiT((1, 9, 9), width=16, heads=2),
        lambda: DiT((1, 8, 8), width=18, heads=2),
        lambda: DiT((1, 8, 8), width=16, heads=3),
    ],
)
def test_what_cannot_be_halved_or_divided_is_refused(make: Callable[[], UNet]) -> None:
    with pytest.raises(UsageError):
        make()


def test_positions_are_all_different() -> None:
    found = positions(5, 7, 16)
    assert (torch.cdist(found, found) + torch.eye(35) > 0.1).all()


def test_the_heads_of_a_transformer_are_those_of_torchs_attention() -> None:
    torch.manual_seed(0)
    layer, h = transformer().layers[0], torch.randn(3, 6, 16)
    other = nn.MultiheadAttention(16, 2, batch_first=True)
    with torch.no_grad():
        other.in_proj_weight.copy_(layer.inward.weight)  # pyright: ignore
        other.in_proj_bias.copy_(layer.inward.bias)  # pyright: ignore
        other.out_proj.load_state_dict(layer.outward.state_dict())  # pyright: ignore
    torch.testing.assert_close(layer._attended(h), other(h, h, h)[0], rtol=1e-5, atol=1e-5)  # pyright: ignore
