r"""How much of the data's variance is noise to the decoder.

Convention: variances are means over examples and entries, in squared units of the data's own,

.. math:: \sigma^2 = \operatorname{mean} \operatorname{Var}[x_i \mid z], \qquad
    \sigma_x^2 = \operatorname{mean}_i \operatorname{Var}[x_i],

at the representative z of each example. What z does not determine is noise to the decoder; the mean of p(x | z)
averages over it and looks blurred, a sample of p(x | z) shows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ...data import DataSpec, Split
from ...data.transform import widths
from ...likelihoods import declared
from ...models.latent import LatentVariableModel
from ...runtime.modes import evaluating
from ...runtime.randomness import fixed_noise
from ...spec import register
from ..numbers import Fact, Number
from ..passes import PART

__all__ = ["DecoderNoise", "decoder_noise", "learned_sigma", "reconstruction_errors"]


@register("decoder-noise", record=True)
@dataclass(frozen=True)
class DecoderNoise:
    r"""The decoder's noise and the data's spread, each a root mean square over examples and entries.

    Args:
        std: Standard deviation of an entry under p(x | z).
        error: Error of the mean of p(x | z); a learned ``std`` is about as large.
        data_std: Standard deviation of an entry of the data.
        fixed: Whether ``std`` is fixed by an option, not learned.

    Example:
        >>> DecoderNoise(std=0.1, error=0.09, data_std=0.2, fixed=False).remark
        "25% of the data's variance is noise to the decoder; the mean of p(x|z) is blurred by it"
    """

    std: Annotated[float, Number("decoder σ", "noise", "{remark}", unit="the data's {data_std}", digits=3)]
    error: float
    data_std: float
    fixed: bool

    @property
    def share(self) -> float:
        """Share of the data's variance that is noise to the decoder; infinite if the data has none."""
        return self.std**2 / self.data_std**2 if self.data_std > 0 else math.inf

    @property
    def remark(self) -> str:
        """Its interpretation, in a sentence."""
        if self.data_std == 0:
            return "these examples do not vary: the decoder's sigma cannot be compared with them"
        if self.share > 1:
            return "the decoder's sigma is larger than the spread of these examples"
        blur = f"{self.share:.0%} of the data's variance is noise to the decoder; the mean of p(x|z) is blurred by it"
        return f"{blur}; fixed, and the error is {self.error:.3g}" if self.fixed else blur

    @property
    def facts(self) -> dict[str, Fact]:
        """Values for the label of its number."""
        return {"remark": self.remark, "data_std": f"{self.data_std:.3f}"}


def decoder_noise(model: LatentVariableModel, split: Split, *, seed: int = 0) -> DecoderNoise | None:
    """The noise of a decoder that has a scale: gaussian, full-gaussian or (a mixture of) discretized logistics; None
    for other likelihoods.

    References:
        Simple and Effective VAE Training with Calibrated Decoders (Rybkin, Daniilidis and Levine, 2021).

    Args:
        model: The model, on the device to compute on.
        split: Examples.
        seed: Seed of binarisation and dequantisation.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2, likelihood="gaussian", variance=0.25).build(data.spec)
        >>> decoder_noise(model, data.test).std
        0.5
    """
    return reconstruction_errors(model, split, seed=seed)[1]


@torch.no_grad()
def reconstruction_errors(
    model: LatentVariableModel, split: Split, *, seed: int = 0
) -> tuple[Tensor, DecoderNoise | None]:
    """How far the mean of p(x | z) at representative latents is from the data, in one pass.

    Args:
        model: The model, on the device to compute on.
        split: Examples.
        seed: Seed of binarisation and dequantisation.

    Returns:
        The summed squared error of each example, float64 ``(n,)`` in squared units of the data, comparable with PCA's
        error. And the decoder's noise, if it has a scale.

    Example:
        >>> from tightbound.data import load_data
        >>> from tightbound.recipes import VAE
        >>> data = load_data("digits")
        >>> reconstruction_errors(VAE(latent_dim=2).build(data.spec), data.test.subset(10))[0].shape
        torch.Size([10])
    """
    sigma = declared(model.likelihood).sigma
    errors, parts = list[Tensor](), list[Tensor]()
    units = widths(split.spec).to(model.device, model.dtype)
    with evaluating(model), fixed_noise(seed):
        for batch in split.batches(PART, model.device):
            x, c = model.see(batch)
            px = model(c)
            p = px.likelihood(px.representative(x))
            errors.append(((x - p.mean) * units).double().square().flatten(1).sum(1).cpu())
            if sigma is not None:
                parts.append(_moments(x, p))
    return torch.cat(errors), None if sigma is None else _noise(split, parts, fixed=sigma[0] == "fixed")


def _moments(x: Tensor, p: Distribution) -> Tensor:
    values = (p.variance, (x - p.mean).square(), x, x.square())
    return torch.stack([value.double().flatten(1).sum(0) for value in values]).cpu()


def _noise(split: Split, parts: list[Tensor], fixed: bool) -> DecoderNoise:
    variance, error, first, second = torch.stack(parts).sum(0) / len(split)
    spread = (second - first.square()).clamp(min=0)
    squared = widths(split.spec).flatten().square()
    roots = [(squared * value).mean().sqrt().item() for value in (variance, error, spread)]
    return DecoderNoise(*roots, fixed=fixed)


def learned_sigma(likelihood: nn.Module | None, spec: DataSpec | None = None) -> dict[str, Any] | None:
    """The standard deviation stored in a likelihood, in units of the data, and its kind; None without one.

    Args:
        likelihood: Any likelihood.
        spec: Its data spec; None for unscaled data.

    Example:
        >>> from tightbound.likelihoods import Gaussian
        >>> learned_sigma(Gaussian(nn.Linear(2, 64), (2,), (1, 8, 8), variance=0.25))
        {'scale': 'fixed', 'sigma': 0.5}
    """
    if likelihood is None or (held := declared(likelihood).sigma) is None:
        return None
    scale, sigma = held
    own = sigma if spec is None or not spec.scale else widths(spec) * sigma
    return {"scale": scale} | ({} if scale.startswith("network") else _told(own))


def _told(sigma: Tensor) -> dict[str, float]:
    """One number, or the range of several."""
    values = sigma.detach().double().flatten()
    if len(values) == 1:
        return {"sigma": values.item()}
    return {"smallest": values.min().item(), "median": values.median().item(), "largest": values.max().item()}
