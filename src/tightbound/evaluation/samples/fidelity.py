r"""How faithful reconstructions are, image by image.

Convention: images are ``(n, channels, height, width)`` in [0, 1]; every function returns one number per image,
``(n,)`` float64 on the CPU, so that numbers of parts of a split are concatenated, and averaged once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import ShapeError

__all__ = ["MOST_PSNR", "psnr", "ssim", "window_of"]

MOST_PSNR = 100.0
"""The PSNR of an image without error, dB."""
WINDOW, SIGMA = 11, 1.5
"""Side of the window of SSIM, and the standard deviation of its weights, pixels."""


def psnr(images: Tensor, others: Tensor) -> Tensor:
    r"""Peak signal-to-noise ratio of each image, :math:`-10 \log_{10} \operatorname{mean} (x - \hat x)^2`, dB; at most
    100.

    Args:
        images: ``(n, channels, height, width)``.
        others: The same shape.

    Raises:
        ShapeError: If the shapes differ.

    Example:
        >>> psnr(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.1))
        tensor([20.0000], dtype=torch.float64)
    """
    x, y = _images(images, others)
    error = (x - y).square().flatten(1).mean(1)
    return -10 * error.clamp(min=10 ** (-MOST_PSNR / 10)).log10()


def ssim(images: Tensor, others: Tensor) -> Tensor:
    r"""Structural similarity of each image, from -1 to 1: the mean over places and channels.

    .. math:: \frac{2 \mu_x \mu_y + c_1}{\mu_x^2 + \mu_y^2 + c_1} \cdot
        \frac{2 \sigma_{xy} + c_2}{\sigma_x^2 + \sigma_y^2 + c_2}

    with :math:`c_1 = 0.01^2, c_2 = 0.03^2` and moments under a Gaussian window of 11 × 11 pixels with standard
    deviation 1.5, at every place where the window fits. In a smaller image the window has the largest odd side that
    fits.

    References:
        Image Quality Assessment: From Error Visibility to Structural Similarity (Wang et al., 2004).

    Args:
        images: ``(n, channels, height, width)``.
        others: The same shape.

    Raises:
        ShapeError: If the shapes differ.

    Example:
        >>> x = torch.rand(1, 3, 16, 16)
        >>> f"{ssim(x, x).item():.4f}"
        '1.0000'
    """
    x, y = _images(images, others)
    side = window_of(x.shape[-2], x.shape[-1])
    mean_x, mean_y, xx, yy, xy = (_smoothed(each, side) for each in (x, y, x * x, y * y, x * y))
    var_x, var_y, cov = xx - mean_x.square(), yy - mean_y.square(), xy - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    above = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    below = (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    return (above / below).flatten(1).mean(1)


def window_of(height: int, width: int) -> int:
    """Side of the window of SSIM in an image of that size.

    Example:
        >>> window_of(64, 64), window_of(8, 8)
        (11, 7)
    """
    shorter = min(height, width)
    return min(WINDOW, shorter - 1 + shorter % 2)


def _smoothed(x: Tensor, side: int) -> Tensor:
    """Means under the window, one axis after the other."""
    places = torch.arange(side, dtype=x.dtype, device=x.device) - side // 2
    weights = (-places.square() / (2 * SIGMA**2)).exp()
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, side)
    across = F.conv2d(x, weights, groups=x.shape[1])
    return F.conv2d(across, weights.mT, groups=x.shape[1])


def _images(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, if they have the same shape."""
    if a.shape != b.shape or a.dim() != 4:
        got = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ShapeError("These are not pairs of images.", got=got, expected="(n, channels, height, width) twice")
    return a.detach().cpu().double(), b.detach().cpu().double()
