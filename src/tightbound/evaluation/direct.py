r"""Models without a latent: :math:`\log p(x \mid c)` is exact or bounded, and needs no estimation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..conditions import Given
from ..data import Split
from ..data.transform import widths
from ..distributions import has_density, lower_bound
from ..errors import UsageError
from ..models import Model
from ..runtime.modes import evaluating
from ..runtime.randomness import fixed_noise
from .estimate import Estimate, likelihood_fields
from .passes import PART, Precision, over
from .results import Evaluation

__all__ = ["evaluate_directly", "require_direct"]


def require_direct(method: str) -> None:
    """Refuses an estimation method for an exact likelihood.

    Raises:
        UsageError: If the method samples latents.
    """
    if method not in ("auto", "importance"):
        raise UsageError(
            "The likelihood of a model without a latent needs no sampling.",
            got=f"method {method}",
            expected="auto",
            remedy="Leave --method out.",
        )


def evaluate_directly(
    model: Model, split: Split, *, precision: Precision = "float32", seed: int = 0
) -> tuple[Evaluation, dict[str, Tensor]]:
    """Evaluates a model without a latent: the summary, and the values of every example.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        precision: Precision of the networks.
        seed: Seed of the data's noise, and of a bound's samples.
    """
    values = over(model, split, 1, _bound, seed=seed, precision=precision)
    measure, exact = model.measure(split.spec), bool(values["exact"].all())
    errors = _errors(model, split, seed)
    found: dict[str, Any] = {"squared_error": None if errors is None else Estimate.of(errors)}
    if told := likelihood_fields(values["log_likelihood"], measure, split.spec):
        found |= told | {"trusted": exact or None}
    note = "" if exact else "; a lower bound, so the nll is at most this"
    found |= {"notes": (f"{measure.note}{note}", NO_LATENT), "measure": measure.kind, "split": split.name}
    found |= {"method": "exact" if exact else "bound", "k": 1, "n": len(split), "active_units": 0, "dimensions": 0}
    each = {"codes": torch.zeros(len(split), 0)} | ({} if errors is None else {"squared_error": errors})
    return Evaluation(**found), each


NO_LATENT = "the model has no latent: no ELBO, no KL, nothing to reconstruct from"


def _bound(model: Model, x: Tensor, c: Given | None) -> dict[str, Tensor]:
    px = model(c)
    return {"log_likelihood": lower_bound(px, x), "exact": torch.full((len(x),), float(has_density(px)))}


@torch.no_grad()
def _errors(model: Model, split: Split, seed: int) -> Tensor | None:
    """The summed squared error of the mean of p(x | c), ``(n,)``, of a model with a mean."""
    if not model.reconstructs:
        return None
    units, errors = widths(split.spec).to(model.device, model.dtype), list[Tensor]()
    with evaluating(model), fixed_noise(seed):
        for batch in split.batches(PART, model.device):
            x, c = model.see(batch)
            errors.append(((x - model(c).mean) * units).double().square().flatten(1).sum(1).cpu())
    return torch.cat(errors)
