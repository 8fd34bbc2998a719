"""One pass over a data set: the noise, the chunks, the arithmetic, and what cannot be measured refused.

Convention: ``found(model, x, c)`` gives a number for each example of a chunk under each name, ``(n, ...)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from ..checkpoint import check_finite
from ..data import Split
from ..errors import ObjectiveError, UsageError
from ..models.latent import LatentVariableModel, Terms, evaluating
from ..runtime.progress import progress
from ..runtime.randomness import fixed_noise
from .log_likelihood.compiled import with_compiled_density

__all__ = ["Precision", "check_split", "check_support", "examples", "over", "reduced", "terms_of_the_first"]

Precision = Literal["float32", "bf16"]
Found = Callable[[LatentVariableModel, Tensor, Tensor | None], dict[str, Tensor]]
PART = 500
"""Examples whose data is drawn from the same noise."""
ROWS = 100_000
"""Points times samples between two steps of the progress bar."""


def over(
    model: LatentVariableModel,
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
        k: How many samples it takes of each example; chunks are the smaller the more.
        found: What to find.
        seed: Seed of all noise.
        precision: Arithmetic of the networks; densities and sums are at least float32.
        compile: Whether log p(x | z) behind the decoder is compiled.

    Raises:
        UsageError: If the split is empty or k less than 1.
        CheckpointError: If a weight is not a number.
        ObjectiveError: If a value is not, or samples leave the prior's support.
    """
    check_split(split, model)
    if k < 1:
        raise UsageError("At least one sample is needed.", got=f"k = {k}", expected="k >= 1", remedy="Try -k 1000.")
    check_finite(model)
    with torch.no_grad(), fixed_noise(seed), evaluating(model), reduced(model, precision):
        chunks = list(_chunks(with_compiled_density(model) if compile else model, split, k, seed, found))
    values = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
    check_support(values)
    _check_finite(values)
    return values


def _chunks(
    model: LatentVariableModel,
    split: Split,
    k: int,
    seed: int,
    found: Found,
) -> Iterator[dict[str, Tensor]]:
    parameter = next(model.parameters())
    with progress("evaluating", len(split)) as advance:
        for part, indices in enumerate(torch.arange(len(split)).split(PART)):
            with fixed_noise(seed, part):  # the data is drawn alike, whatever k and the model
                batch = split.batch(indices, parameter.device)
                c = model.conditions(batch)
            rows = max(1, ROWS // k)
            parts = batch.x.to(parameter.dtype).split(rows)
            for x, given in zip(parts, [None] * len(parts) if c is None else c.split(rows), strict=True):
                yield {name: value.cpu() for name, value in found(model, x, given).items()}
                advance(len(x))


def examples(model: LatentVariableModel, split: Split, indices: Tensor, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """Some examples of a split as :func:`over` shows them, by the same draws, and their conditions.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        indices: Which, rising, ``(n,)``.
        seed: Seed of all noise.
    """
    parameter, found = next(model.parameters()), list[tuple[Tensor, Tensor | None]]()
    for part in (indices // PART).unique().tolist():
        whole = torch.arange(part * PART, min(len(split), (part + 1) * PART))
        with fixed_noise(seed, part):
            batch = split.batch(whole, parameter.device)
            c = model.conditions(batch)
        here = (indices[indices // PART == part] - part * PART).to(parameter.device)
        found.append((batch.x.to(parameter.dtype)[here], None if c is None else c[here]))
    x, given = torch.cat([x for x, _ in found]), [c for _, c in found if c is not None]
    return x, torch.cat(given) if given else None


def terms_of_the_first(model: LatentVariableModel, split: Split) -> Terms:
    """The terms of one example, which tell what kinds of distributions the model is made of."""
    parameter = next(model.parameters())
    with torch.no_grad(), fixed_noise(), evaluating(model):
        batch = split.batch(torch.arange(1), parameter.device)
        return model.given(batch).terms(batch.x.to(parameter.dtype))


def reduced(model: nn.Module, precision: Precision) -> AbstractContextManager[object]:
    """The arithmetic of a model's networks within it.

    Raises:
        UsageError: If there is no such precision.
    """
    if precision not in ("float32", "bf16"):
        raise UsageError("There is no such precision.", got=repr(precision), expected="float32 or bf16")
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext()


def check_split(split: Split, model: LatentVariableModel) -> None:
    """Refuses what is no split, an empty one, or one that is standardised by other numbers than the model's data.

    Raises:
        UsageError: If it is.
    """
    if not isinstance(split, Split):  # pyright: ignore[reportUnnecessaryIsInstance]
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
