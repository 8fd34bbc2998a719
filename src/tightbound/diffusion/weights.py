r"""Weights of the denoiser's error in training, as factors on :math:`\tfrac{1}{2} \|x - D\|^2` at even times.

Convention: the bound itself has the factor :math:`-\mathrm{d} e^{-\gamma} / \mathrm{d} t = \gamma' e^{-\gamma}`. A
factor on another error follows from one on this: the error of the noise is :math:`e^{-\gamma}` times as large, that of
v, :math:`1 + e^{-\gamma}` times, and that of the velocity, :math:`(1 + e^{-\gamma / 2})^2` times.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..options.direct import WeightName

__all__ = ["MIN_SNR", "SIGMOID", "weight"]

MIN_SNR = 5.0
"""The signal-to-noise ratio above which "min-snr" weighs the error of the data evenly."""
SIGMOID = 2.0
"""The log signal-to-noise ratio above which "sigmoid" weighs noise levels less than the bound."""


def weight(name: WeightName, gamma: Tensor, rate: Tensor, spread: Tensor) -> Tensor:
    r"""The factor on the squared error of the data.

    - ``bound``: :math:`\gamma' e^{-\gamma}`.
    - ``simple``, the error of the noise: :math:`e^{-\gamma}`.
    - ``min-snr``: :math:`\min(e^{-\gamma}, 5)`.
    - ``sigmoid``: the bound's, times :math:`1 / (1 + e^{-\gamma - 2})`.
    - ``edm`` and ``edm2``, the error of a network with output of unit variance: :math:`e^{-\gamma} + 1 / s^2`.
    - ``velocity``: :math:`(1 + e^{-\gamma / 2})^2`.

    References:
        Denoising Diffusion Probabilistic Models (Ho, Jain and Abbeel, 2020).
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila and Laine, 2022).
        Efficient Diffusion Training via Min-SNR Weighting Strategy (Hang et al., 2023).
        Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation (Kingma and Gao, 2023).

    Args:
        name: The weight.
        gamma: Noise levels, ``(n)``.
        rate: The bound's factor at each, ``(n)``.
        spread: Standard deviation s of the data.

    Example:
        >>> gamma, one = torch.zeros(1), torch.ones(1)
        >>> {name: weight(name, gamma, one, one).item() for name in ("simple", "edm", "velocity")}
        {'simple': 1.0, 'edm': 2.0, 'velocity': 4.0}
    """
    snr = (-gamma).exp()
    if name == "bound":
        return rate
    if name == "simple":
        return snr
    if name == "min-snr":
        return snr.clamp(max=MIN_SNR)
    if name == "sigmoid":
        return rate * torch.sigmoid(gamma + SIGMOID)
    return (1 + snr.sqrt()).square() if name == "velocity" else snr + spread**-2
