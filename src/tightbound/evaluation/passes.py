"""One pass over a data set: the noise, the chunks, the arithmetic, and what cannot be measured refused.

Convention: ``found(model, x, c)`` gives a number for each example of a chunk under each name, ``(n, ...)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..checkpoint import check_finite
from ..conditions import Given
from ..data import Split
from ..distributions import is_certain
from ..errors import ObjectiveError, UsageError
from ..models import LatentVariableModel, Marginal, Model, Terms
from ..runtime.modes import evaluating
from ..runtime.progress import progress
from ..runtime.randomness import Stream, fixed_noise
from .log_likelihood.compiled import with_compiled_density

__all__ = [
    "Finding",
    "Precision",
    "certain",
    "check_split",
    "check_support",
    "examples",
    "over",
    "reduced",
    "terms_of_the_first",
    "together",
]

Precision = Literal["float32", "bf16"]
Found = Callable[[Any, Tensor, Given | None], dict[str, Tensor]]
PART = 500
"""Examples whose data is drawn from the same noise."""
ROWS = 100_000
"""Points times samples between two steps of the progress bar."""


@dataclass(frozen=True)
class Finding:
    """What a pass finds of every example, with noise and arithmetic of its own.

    Args:
        k: How many samples it takes of each example; chunks are the smaller the more.
        find: What to find.
        precision: Arithmetic of the networks; densities and sums are at least float32.
        compile: Whether log p(x | z) behind the decoder is compiled.
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
    """What ``found`` says of every example of a split, on the CPU.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        k: How many samples it takes of each example.
        found: What to find.
        seed: Seed of all noise.
        precision: Arithmetic of the networks.
        compile: Whether log p(x | z) behind the decoder is compiled.

    Raises:
        UsageError: If the split is empty or k less than 1.
        CheckpointError: If a weight is not a number.
        ObjectiveError: If a value is not, or samples leave the prior's support.
    """
    return together(model, split, [Finding(k, found, precision, compile)], seed=seed)[0]


def together(model: Model, split: Split, findings: Sequence[Finding], *, seed: int = 0) -> list[dict[str, Tensor]]:
    """Several findings in one pass over a split, each as :func:`over` alone would give it, to the bit.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        findings: What to find of each example; each draws from a stream of its own.
        seed: Seed of all noise.

    Raises:
        UsageError: As :func:`over`.
    """
    check_split(split, model)
    check_finite(model)
    with torch.no_grad(), evaluating(model), progress("evaluating", len(split) * len(findings)) as advance:
        takers = [_Taker(model, finding, seed) for finding in findings]
        for x, c in _parts(model, split, seed):
            for taker in takers:
                taker.take(x, c, advance)
    return [taker.values() for taker in takers]


class _Taker:
    """One finding of a pass: its noise, its model, and what it has found so far."""

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
        check_support(values)
        _check_finite(values)
        return values


def _parts(model: Model, split: Split, seed: int) -> Iterator[tuple[Tensor, Given | None]]:
    """Examples and their conditions, a part at a time, drawn alike whatever k and the model."""
    for part, indices in enumerate(torch.arange(len(split)).split(PART)):
        with fixed_noise(seed, part):
            x, c = model.see(split.batch(indices, model.device))
        yield x, c


def examples(model: Model, split: Split, indices: Tensor, seed: int = 0) -> tuple[Tensor, Given | None]:
    """Some examples of a split as :func:`over` shows them, by the same draws, and their conditions.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        indices: Which, rising, ``(n,)``.
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
    """The terms of one example, which tell what kinds of distributions the model is made of.

    Raises:
        ObjectiveError: If the model has no latent, and so no terms.
    """
    with torch.no_grad(), fixed_noise(), evaluating(model):
        x, c = model.see(split.batch(torch.arange(1), model.device))
        if not isinstance(px := model(c), Marginal):
            raise ObjectiveError(
                "This model has no latent, so there is no ELBO to be taken apart.",
                got=type(model).__name__,
                remedy="It can be evaluated, sampled and reported on: tightbound.evaluate(model, split).",
            )
        return px.terms(x)


def certain(terms: Terms) -> bool:
    """Whether all samples of every posterior are the same."""
    return all(is_certain(latent.posterior) for latent in terms.latents)


def reduced(model: Model, precision: Precision) -> AbstractContextManager[object]:
    """The arithmetic of a model's networks within it.

    Raises:
        UsageError: If there is no such precision.
    """
    if precision not in ("float32", "bf16"):
        raise UsageError("There is no such precision.", got=repr(precision), expected="float32 or bf16")
    return torch.autocast(model.device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def check_split(split: Split, model: Model) -> None:
    """Refuses what is no split, an empty one, or one that is standardised by other numbers than the model's data.

    Raises:
        UsageError: If it is.
    """
    if not isinstance(split, Split):
        raise UsageError("A model is evaluated on a split.", got=type(split).__name__, remedy="Try data.test.")
    if len(split) == 0:
        raise UsageError(f"The {split.name} split is empty.", remedy="Evaluate another, or all: --split all.")
    own = model.data_spec
    if own is not None and (own.location, own.scale) != (split.spec.location, split.spec.scale):
        raise UsageError(
            "The split is standardised by other numbers than the data that the model was made for.",
            got=f"scale {split.spec.scale[:3] or 'as it is'}",
            expected=f"scale {own.scale[:3] or 'as it is'}",
            remedy="Take data.scaled_as(model.data_spec), or tightbound.runs.load_run_data(run, data).",
        )


def check_support(values: dict[str, Tensor]) -> None:
    """Refuses samples ``outside`` the prior's support."""
    share = values.get("outside")
    if share is None or not share.any():
        return
    raise ObjectiveError(
        "Samples of the posterior leave the prior's support, where their weight is zero and the KL infinite.",
        got=f"{share.double().mean().item():.1%} of the samples, in {int((share > 0).sum())} of {len(share)} examples",
        expected="a posterior within the prior's support",
        remedy="Use a prior over all real vectors ('normal'), or a posterior mapped into the support.",
    )


def _check_finite(values: dict[str, Tensor]) -> None:
    lost = [name for name, value in values.items() if not value.isfinite().all()]
    if not lost:
        return
    raise ObjectiveError(
        "The model gives values that are not numbers.",
        got=f"{', '.join(lost)} of {int((~values[lost[0]].isfinite()).sum())} entries",
        expected="finite numbers",
        remedy="Its weights, or this data, are out of range: train again with a lower --lr, or look at the data.",
    )
