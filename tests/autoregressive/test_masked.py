"""What a pixel sees, and which latent belongs to which image."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tightbound import LatentVariableModel
from tightbound.likelihoods.pixel_decoder import AutoregressiveLikelihood
from tightbound.networks import MLP, MaskedConv2d, PixelDecoder
from tightbound.objectives import elbo
from tightbound.posteriors import DiagonalGaussian
from tightbound.priors import StandardNormal
from tightbound.runtime.randomness import fixed_noise

LATENT, SHAPE = 2, (1, 4, 4)


def network(shape: tuple[int, int, int] = SHAPE, layers: int = 2, kernel: int = 3) -> PixelDecoder:
    out = PixelDecoder(LATENT, shape, channels=4, layers=layers, kernel=kernel, maps=2, activation="tanh")
    for p in out.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return out.double()


def decoder() -> AutoregressiveLikelihood:
    return AutoregressiveLikelihood(network(), LATENT, SHAPE)


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, LATENT, dtype=torch.float64)


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, *SHAPE, dtype=torch.float64).round()


def test_a_changed_pixel_changes_no_parameter_up_to_its_own() -> None:
    net, x, z = network(), images(1), latents(1)
    before = net(x, z).flatten()
    for j in range(16):
        changed = x.clone()
        changed.view(-1)[j] = 1 - changed.view(-1)[j]
        same = net(changed, z).flatten() == before
        assert same[: j + 1].all()
        assert j == 15 or not same[j + 1 :].all()


@pytest.mark.parametrize("itself", [False, True])
def test_a_mask_lets_through_the_pixels_before(itself: bool) -> None:
    layer = MaskedConv2d(2, 3, 5, itself=itself)
    flat = layer.mask.flatten().bool().tolist()
    assert flat == [True] * (13 if itself else 12) + [False] * (12 if itself else 13)


@pytest.mark.parametrize(("layers", "kernel"), [(1, 3), (1, 5), (2, 3), (3, 3)])
def test_reach_is_attained_and_is_the_reach(layers: int, kernel: int) -> None:
    """The pixel ``reach`` to the left is seen, and so is the one ``reach`` rows above; none beyond."""
    side = 2 * layers * (kernel // 2) + 3
    net = network((1, side, side), layers, kernel)
    x = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    i, j = side - 1, side // 2
    (slope,) = torch.autograd.grad(net(x, latents(1))[0, 0, i, j], x)
    seen = slope[0, 0] != 0
    assert net.reach == layers * (kernel // 2)
    assert seen[i, j - net.reach]
    assert seen[i - net.reach, j]
    assert not seen[i, : j - net.reach].any()
    assert not seen[: i - net.reach].any()


@pytest.mark.parametrize(
    ("leading", "batch"),
    [((), (5,)), ((3,), ()), ((2, 1), (5,)), ((2, 1, 3), (5, 1)), ((1, 3), (2, 1)), ((2, 3), (4, 2, 3))],
)
def test_each_image_meets_its_own_latent(leading: tuple[int, ...], batch: tuple[int, ...]) -> None:
    p, z, x = decoder(), latents(*leading), images(*batch)
    shape = torch.broadcast_shapes(leading, batch)
    found = p(z).log_prob(x)
    assert found.shape == shape
    z, x = z.expand(*shape, LATENT), x.expand(*shape, *SHAPE)
    for at in itertools.product(*map(range, shape)):
        torch.testing.assert_close(found[at], p(z[at]).log_prob(x[at]), rtol=1e-12, atol=1e-12)


def test_samples_keep_to_their_latent() -> None:
    """A latent that decides the pixels for certain decides them in every leading dimension."""
    p = decoder()
    with torch.no_grad():
        for parameter in p.parameters():
            parameter.zero_()
        p.network.output_layer.bias.fill_(50.0)  # pyright: ignore[reportOptionalMemberAccess]
    assert (p(latents(2, 3)).sample((4,)) == 1).all()
    with torch.no_grad():  # the sign of the latent goes through one unit, one map and the last layer
        p.network.map[0].weight[0, 0] = 1.0  # pyright: ignore[reportIndexIssue]
        p.network.map[2].weight[:16, 0] = 50.0  # pyright: ignore[reportIndexIssue]
        p.network.shown[0].weight[0, 0] = 50.0  # pyright: ignore[reportIndexIssue]
        p.network.output_layer.weight[0, 0] = 100.0
        p.network.output_layer.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    z = torch.tensor([[-9.0, 0.0], [9.0, 0.0], [9.0, 0.0]], dtype=torch.float64)
    drawn = p(z).sample((4,))
    assert drawn.shape == (4, 3, *SHAPE)
    assert (drawn[:, 1:] == 1).all()
    assert not drawn[:, 0].any()


def test_an_example_costs_the_same_in_any_batch() -> None:
    posterior = DiagonalGaussian(MLP(SHAPE, 2 * LATENT, (8,)), SHAPE)
    model = LatentVariableModel(StandardNormal(LATENT), decoder(), posterior).double()
    x = images(6)

    def loss(rows: Tensor) -> Tensor:
        z = torch.ones(3, len(rows), LATENT, dtype=torch.float64)
        return model.likelihood(z).log_prob(rows).mean(0) - model().terms(rows).kl()

    together = loss(x)
    torch.testing.assert_close(torch.cat([loss(x[:1]), loss(x[1:4]), loss(x[4:])]), together, rtol=1e-12, atol=1e-12)
    with fixed_noise():
        elbo(model().terms(x, k=3)).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
