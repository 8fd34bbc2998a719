"""One pass over a split: noise, chunks, precision and checks.

Convention: ``found(model, x, c)`` returns values of each example of a chunk by name, ``(n, ...)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..checkpoint import require_finite
from ..conditions import Given
from ..data import Split
from ..distributions import is_certain
from ..errors import ObjectiveError, UsageError
from ..models import LatentVariableModel, Model, Terms
from ..models.latent import with_latents
from ..runtime.modes import evaluating
from ..runtime.progress import progress
from ..runtime.randomness import Stream, fixed_noise
from .log_likelihood.compiled import with_compiled_density

__all__ = [
    "Finding",
    "Precision",
    "certain",
    "examples",
    "over",
    "reduced",
    "require_split",
    "require_support",
    "terms_of_the_first",
    "together",
]

Precision = Literal["float32", "bf16"]
Found = Callable[[Any, Tensor, Given | None], dict[str, Tensor]]
PART = 500
"""Number of examples per noise seed of the data."""
ROWS = 100_000
"""Points times samples per update of the progress bar."""


@dataclass(frozen=True)
class Finding:
    """A computation for every example in a pass, with its own noise and precision.

    Args:
        k: Samples per example; more samples make smaller chunks.
        find: The function to compute.
        precision: Precision of the networks; densities and sums are at least float32.
        compile: Whether log p(x | z) after the decoder is compiled.
    """

    k: int
    find: Found
    precision: Precision = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError("At least one sample is needed.", got=f"k = {self.k}", expected="k >= 1", remedy=_MANY)


_MANY = "Try -k 1000."


def over(
    model: Model,
    split: Split,
    k: int,
    found: Found,
    *,
    seed: int = 0,
    precision: Precision = "float32",
    compile: bool = False,
) -> dict[str, Tensor]:
    """Evaluates ``found`` on every example of a split; results are on the CPU.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        k: Samples per example.
        found: The function to compute.
        seed: Seed of all noise.
        precision: Precision of the networks.
        compile: Whether log p(x | z) after the decoder is compiled.

    Raises:
        UsageError: If the split is empty or k less than 1.
        CheckpointError: If a weight is not finite.
        ObjectiveError: If a value is not finite, or samples leave the prior's support.
    """
    return together(model, split, [Finding(k, found, precision, compile)], seed=seed)[0]


def together(model: Model, split: Split, findings: Sequence[Finding], *, seed: int = 0) -> list[dict[str, Tensor]]:
    """Computes several findings in one pass over a split, each bit-identical to :func:`over`.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        findings: The computations; each has its own random stream.
        seed: Seed of all noise.

    Raises:
        UsageError: As :func:`over`.
    """
    require_split(split, model)
    require_finite(model)
    with torch.no_grad(), evaluating(model), progress("evaluating", len(split) * len(findings)) as advance:
        takers = [_Taker(model, finding, seed) for finding in findings]
        for x, c in _parts(model, split, seed):
            for taker in takers:
                taker.take(x, c, advance)
    return [taker.values() for taker in takers]


class _Taker:
    """One finding of a pass: its noise, model and values so far."""

    def __init__(self, model: Model, finding: Finding, seed: int) -> None:
        self.finding, self.stream, self.chunks = finding, Stream(seed), list[dict[str, Tensor]]()
        self.model = (
            with_compiled_density(model) if finding.compile and isinstance(model, LatentVariableModel) else model
        )

    def take(self, x: Tensor, c: Given | None, advance: Callable[[int], None]) -> None:
        rows = max(1, ROWS // self.finding.k)
        parts = x.split(rows)
        with self.stream.on(), reduced(self.model, self.finding.precision):
            for some, given in zip(parts, [None] * len(parts) if c is None else c.split(rows), strict=True):
                found = self.finding.find(self.model, some, given)
                self.chunks.append({name: value.cpu() for name, value in found.items()})
                advance(len(some))

    def values(self) -> dict[str, Tensor]:
        values = {name: torch.cat([chunk[name] for chunk in self.chunks]) for name in self.chunks[0]}
        require_support(values)
        _check_finite(values)
        return values


def _parts(model: Model, split: Split, seed: int) -> Iterator[tuple[Tensor, Given | None]]:
    """Examples and their conditions in parts, with noise independent of k and model."""
    for part, indices in enumerate(torch.arange(len(split)).split(PART)):
        with fixed_noise(seed, part):
            x, c = model.see(split.batch(indices, model.device))
        yield x, c


def examples(model: Model, split: Split, indices: Tensor, seed: int = 0) -> tuple[Tensor, Given | None]:
    """Some examples of a split as in :func:`over`, with the same noise, and their conditions.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        indices: Their indices, ascending, ``(n,)``.
        seed: Seed of all noise.
    """
    found = list[tuple[Tensor, Given | None]]()
    for part in (indices // PART).unique().tolist():
        whole = torch.arange(part * PART, min(len(split), (part + 1) * PART))
        with fixed_noise(seed, part):
            x, c = model.see(split.batch(whole, model.device))
        here = (indices[indices // PART == part] - part * PART).to(model.device)
        found.append((x[here], None if c is None else c[here]))
    x, given = torch.cat([x for x, _ in found]), [c for _, c in found if c is not None]
    return x, Given.cat(given) if given else None


def terms_of_the_first(model: Model, split: Split) -> Terms:
    """The terms of one example, which determine the kinds of distributions in the model.

    Raises:
        UsageError: If the model has no latent, and so no terms.
    """
    with torch.no_grad(), fixed_noise(), evaluating(model):
        x, c = model.see(split.batch(torch.arange(1), model.device))
        return with_latents(model)(c).terms(x)


def certain(terms: Terms) -> bool:
    """Whether all samples of every posterior are the same."""
    return not terms.estimated and all(is_certain(latent.posterior) for latent in terms.latents)


def reduced(model: Model, precision: Precision) -> AbstractContextManager[object]:
    """Sets the precision of a model's networks inside the block.

    Raises:
        UsageError: If the precision is unknown.
    """
    if precision not in ("float32", "bf16"):
        raise UsageError("Unknown precision.", got=repr(precision), expected="float32 or bf16")
    return torch.autocast(model.device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def require_split(split: Split, model: Model) -> None:
    """Refuses anything but a non-empty split that is standardised like the model's data.

    Raises:
        UsageError: If it is empty, not a split, or standardised differently.
    """
    if not isinstance(split, Split):
        raise UsageError("A model must be evaluated on a split.", got=type(split).__name__, remedy="Try data.test.")
    if len(split) == 0:
        raise UsageError(f"The {split.name} split is empty.", remedy="Evaluate another, or all: --split all.")
    own = model.data_spec
    if own is not None and (own.location, own.scale) != (split.spec.location, split.spec.scale):
        raise UsageError(
            "The split is not standardised like the data that the model was built for.",
            got=f"scale {split.spec.scale[:3] or 'unchanged'}",
            expected=f"scale {own.scale[:3] or 'unchanged'}",
            remedy="Use data.scaled_as(model.data_spec), or tightbound.runs.load_run_data(run, data).",
        )


def require_support(values: dict[str, Tensor]) -> None:
    """Refuses samples ``outside`` the prior's support."""
    share = values.get("outside")
    if share is None or not share.any():
        return
    raise ObjectiveError(
        "Samples of the posterior leave the prior's support, where the weight is zero and the KL infinite.",
        got=f"{share.double().mean().item():.1%} of the samples, in {int((share > 0).sum())} of {len(share)} examples",
        expected="a posterior within the prior's support",
        remedy="Use a prior over all real vectors ('normal'), or a posterior mapped into the support.",
    )


def _check_finite(values: dict[str, Tensor]) -> None:
    lost = [name for name, value in values.items() if not value.isfinite().all()]
    if not lost:
        return
    raise ObjectiveError(
        "The model returns values that are not finite.",
        got=f"{', '.join(lost)} of {int((~values[lost[0]].isfinite()).sum())} entries",
        expected="finite numbers",
        remedy="Its weights, or this data, are out of range: train again with a lower --lr, or check the data.",
    )
