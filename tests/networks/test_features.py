"""A pretrained network for comparing images: its weights are checked, and it sees what it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tightbound.errors import CheckpointError, UsageError
from tightbound.networks import features
from tightbound.networks.features import STAGES, efficientnet_lite0
from tightbound.networks.weights import require_hash


def test_the_pooled_features_are_those_before_the_last_layer_of_the_package() -> None:
    network = efficientnet_lite0()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = cast(Any, network.network).extract_features((x * 255 - 127) / 128).mean((2, 3))
        found = network(x)
    assert torch.allclose(found.pooled, expected, atol=1e-6)
    assert [each.shape[1] for each in found.maps] == [16, 24, 40, 112, 320]
    assert len({each.shape[-1] for each in found.maps}) == len(STAGES)


def test_it_takes_gradients_to_images_and_none_to_its_weights() -> None:
    network, x = efficientnet_lite0(), torch.rand(1, 1, 20, 30, requires_grad=True)
    network(x).pooled.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in network.parameters())


def test_loading_it_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    efficientnet_lite0()
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))


def test_a_file_with_another_hash_than_its_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vgg16-397923af.pth"
    path.write_bytes(b"other")
    with pytest.raises(CheckpointError, match="its name says"):
        require_hash(path)


def test_without_its_packages_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_PACKAGES", ("no_such_package",))
    with pytest.raises(UsageError, match="not installed"):
        efficientnet_lite0()
