"""Principal components of blocks: those of whole images where there is one block, and never worse than another code."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import tightbound as tb
from tightbound.data import Data
from tightbound.errors import UsageError
from tightbound.evaluation.baselines.blocks import fit_block_pca
from tightbound.evaluation.baselines.components import fit_pca, pca_error


def test_of_one_block_it_is_pca() -> None:
    data = tb.load_data("digits")
    x = data.test.batch(torch.arange(len(data.test))).x
    found = fit_block_pca(data.train, factor=8, channels=10)
    error = (found.reconstruct(x) - x).square().flatten(1).sum(1)
    assert error.numpy() == pytest.approx(pca_error(fit_pca(data.train, 10), data.test).numpy(), rel=1e-6)


def colour(n: int = 60, height: int = 8, width: int = 12) -> Data:
    smooth = F.interpolate(torch.rand(n, 3, height // 4, width // 4), (height, width), mode="bilinear")
    return Data.from_arrays((smooth * 255).round().byte().numpy().transpose(0, 2, 3, 1))


def test_its_error_is_what_the_other_eigenvalues_hold_and_no_other_linear_code_has_less() -> None:
    data = colour()
    x = data.train.batch(torch.arange(len(data.train))).x.double()
    found = fit_block_pca(data.train, factor=4, channels=5)
    error = (found.reconstruct(x) - x).square().sum(dim=(1, 2, 3)).mean().item()
    assert error == pytest.approx(6 * 43 * found.pca.noise, rel=1e-8)  # 6 blocks, 48 - 5 directions left out
    cut = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2) - found.pca.mean
    for _ in range(20):
        basis, _ = torch.linalg.qr(found.pca.components + 0.1 * torch.randn_like(found.pca.components))
        assert (cut - cut @ basis @ basis.T).square().sum(1).mean().item() * 6 > error


def test_larger_blocks_with_as_many_latents_have_a_smaller_error() -> None:
    data = colour(200, 8, 8)
    x = data.train.batch(torch.arange(len(data.train))).x.double()
    errors = [(fit_block_pca(data.train, 2, 2, b).reconstruct(x) - x).square().sum().item() for b in (1, 2, 4)]
    assert errors[0] > errors[1] > errors[2]


def test_all_components_keep_everything_and_more_are_refused() -> None:
    data = colour()
    x = data.test.batch(torch.arange(len(data.test))).x
    assert torch.allclose(fit_block_pca(data.train, 4, 48).reconstruct(x), x.double(), atol=1e-10)
    with pytest.raises(UsageError, match="fewer entries"):
        fit_block_pca(data.train, 4, 49)
    with pytest.raises(UsageError, match="do not divide"):
        fit_block_pca(data.train, 5, 2)
