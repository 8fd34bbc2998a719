"""The discriminator of patches: what it sees, what it is too large for, whose weights it takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tightbound.errors import UsageError
from tightbound.networks.discriminator import PatchDiscriminator, layers_that_fit, receptive_field


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_logit_depends_on_its_patch_and_on_nothing_else(layers: int) -> None:
    side = 2 * receptive_field(layers) + 4
    judge = PatchDiscriminator(1, width=2, layers=layers, norm="none").double()
    for part in judge.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.uniform_(part.weight, 0.5, 1.0)
    x = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    logits = judge(x)
    middle = logits.shape[2] // 2
    (slope,) = torch.autograd.grad(logits[0, 0, middle, middle], x)
    rows = slope[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == receptive_field(layers)


def test_it_takes_rectangles_and_any_number_of_channels() -> None:
    assert PatchDiscriminator(4, width=4, layers=1)(torch.zeros(2, 4, 16, 24)).shape == (2, 1, 6, 10)


def test_one_larger_than_the_image_is_refused_with_one_that_fits() -> None:
    with pytest.raises(UsageError, match=r"larger than the image(?s:.*)70 x 70(?s:.*)--discriminator-layers 2"):
        PatchDiscriminator(3, width=4, layers=3)(torch.zeros(1, 3, 64, 64))
    with pytest.raises(UsageError, match=r"16 x 16(?s:.*)--adversarial none"):
        layers_that_fit((1, 8, 8))


def test_group_normalisation_keeps_examples_apart() -> None:
    judge, x = PatchDiscriminator(3, width=4, layers=2), torch.rand(5, 3, 40, 40)
    torch.testing.assert_close(judge(x)[:2], judge(x[:2]))


def test_the_weights_of_a_published_discriminator_fit_and_their_statistics_stay() -> None:
    """Its layers stand in a sequence `main`, with batch normalisation."""
    layers = [nn.Conv2d(3, 64, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for inputs, outputs, stride in ((64, 128, 2), (128, 256, 2), (256, 512, 1)):
        layers += [nn.Conv2d(inputs, outputs, 4, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
    published = nn.Sequential(*layers, nn.Conv2d(512, 1, 4, 1, 1)).eval()
    state = {f"main.{name}": tensor for name, tensor in published.state_dict().items()}
    judge = PatchDiscriminator(3, norm="stored")
    judge.load_state_dict(state)
    x = torch.rand(2, 3, 72, 72)
    torch.testing.assert_close(judge.train()(x), published(x))
    assert all(torch.equal(judge.state_dict()[name], tensor) for name, tensor in state.items())
