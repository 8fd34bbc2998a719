"""PSNR, SSIM and the perceptual distance against their definitions, written as loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tightbound.errors import ShapeError
from tightbound.evaluation.samples.fidelity import psnr, ssim
from tightbound.networks.perceptual import perceptual_distance


def test_psnr_is_that_of_each_image() -> None:
    x = torch.zeros(3, 1, 4, 4)
    y = torch.stack([x[0], x[1] + 0.1, x[2] + 0.01])
    assert psnr(x, y).tolist() == pytest.approx([100.0, 20.0, 40.0], abs=1e-5)
    one_wrong = torch.zeros(1, 1, 4, 4)
    one_wrong[0, 0, 1, 2] = 1.0
    assert psnr(x[:1], one_wrong).item() == pytest.approx(10 * math.log10(16))


def ssim_by_loops(x: Tensor, y: Tensor, side: int) -> float:
    """One channel, ``(height, width)``, in double precision Python numbers."""
    c1, c2, middle = 0.01**2, 0.03**2, side // 2
    raw = [[math.exp(-((i - middle) ** 2 + (j - middle) ** 2) / 4.5) for j in range(side)] for i in range(side)]
    total = sum(map(sum, raw))
    found = []
    for top in range(x.shape[0] - side + 1):
        for left in range(x.shape[1] - side + 1):
            cells = [
                (raw[i][j] / total, float(x[top + i, left + j]), float(y[top + i, left + j]))
                for i in range(side)
                for j in range(side)
            ]
            mx, my = sum(w * a for w, a, _ in cells), sum(w * b for w, _, b in cells)
            vx = sum(w * (a - mx) ** 2 for w, a, _ in cells)
            vy = sum(w * (b - my) ** 2 for w, _, b in cells)
            cov = sum(w * (a - mx) * (b - my) for w, a, b in cells)
            found.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return sum(found) / len(found)


@pytest.mark.parametrize(("height", "width", "side"), [(13, 16, 11), (8, 8, 7), (12, 3, 3), (2, 2, 1)])
def test_ssim_is_its_definition(height: int, width: int, side: int) -> None:
    x = torch.rand(2, 3, height, width).double()
    y = (x + 0.2 * torch.randn_like(x)).clamp(0, 1)
    expected = [sum(ssim_by_loops(a[c], b[c], side) for c in range(3)) / 3 for a, b in zip(x, y, strict=True)]
    assert ssim(x, y).tolist() == pytest.approx(expected, abs=1e-12)


def test_ssim_of_an_image_and_itself_is_one_and_of_its_negative_small() -> None:
    x = torch.rand(4, 1, 20, 20)
    assert ssim(x, x).tolist() == pytest.approx([1.0] * 4, abs=1e-12)
    assert ssim(x, 1 - x).max() < 0


def test_the_perceptual_distance_is_of_directions_at_each_place() -> None:
    a, b = torch.randn(2, 5, 3, 4).double(), torch.randn(2, 5, 3, 4).double()
    expected = []
    for i in range(2):
        places = [(h, w) for h in range(3) for w in range(4)]
        unit = lambda f, h, w, i=i: f[i, :, h, w] / f[i, :, h, w].norm()
        expected.append(sum(float((unit(a, *p) - unit(b, *p)).square().sum()) for p in places) / len(places))
    assert perceptual_distance([a], [b]).tolist() == pytest.approx(expected, rel=1e-6)
    assert perceptual_distance([a, a], [b, a]).tolist() == pytest.approx([each / 2 for each in expected], rel=1e-6)
    assert perceptual_distance([a, 7 * a], [3 * a, a]).tolist() == pytest.approx([0.0, 0.0], abs=1e-15)
    zero = torch.zeros(2, 5, 3, 4)
    assert perceptual_distance([zero], [zero]).tolist() == [0.0, 0.0]


def test_what_are_no_pairs_of_images_is_refused() -> None:
    with pytest.raises(ShapeError, match="not pairs of images"):
        psnr(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 5))
