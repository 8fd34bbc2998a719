r"""Codebook usage of a model over a split.

Convention: a share of the codes is between 0 and 1; a perplexity is the exponential of an entropy in nats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...conditions import Given
from ...data import Split
from ...errors import ObjectiveError
from ...models.latent import LatentVariableModel
from ...quantizers import Usage
from ..collapse.remedies import against, offer
from ..collapse.ways import Run
from ..passes import over

__all__ = ["CodeCounter", "CodeUsage", "LevelUsage", "code_usage"]

LOW = 0.5
"""Minimum usage without a remedy."""


@dataclass(frozen=True)
class LevelUsage:
    """Usage of one level's codebook.

    Args:
        grid: Shape of the level's grid.
        codes: Number of codes.
        codebook_usage: Share of codes used at least once.
        perplexity: Number of equally frequent codes with the same entropy.
        largest: Share of the positions with the most frequent code.
    """

    grid: tuple[int, ...]
    codes: int
    codebook_usage: float
    perplexity: float
    largest: float


@dataclass(frozen=True)
class CodeUsage:
    r"""Results of :func:`code_usage`, in total and per level.

    Args:
        codebook_usage: Share of the codes of all codebooks used at least once.
        perplexity: Exponential of the mean entropy over the positions of all levels.
        levels: Each level, the top first.
        n: Number of examples.
        split: Name of the split.
        notes: Notes on these numbers, with remedies.
    """

    codebook_usage: float
    perplexity: float
    levels: tuple[LevelUsage, ...]
    n: int
    split: str
    notes: tuple[str, ...]


def code_usage(model: LatentVariableModel, split: Split, *, seed: int = 0) -> CodeUsage:
    r"""Counts the codes of all examples of a split, since one batch understates the usage.

    .. math:: \mathrm{perplexity} = \exp\Big(-\sum_k p_k \ln p_k\Big), \qquad p_k = \text{share of code } k

    Args:
        model: A model whose posterior has codes, on the device to compute on.
        split: The data.
        seed: Seed of binarisation and dequantisation.

    Raises:
        UsageError: If the split is empty.
        ObjectiveError: If the model has no codes.

    Example:
        >>> import tightbound as tb
        >>> from tightbound.recipes.vq_vae import VQVAE
        >>> data = tb.load_data("digits")
        >>> model = VQVAE(codes=16, channels=(8,)).build(data.spec)
        >>> code_usage(model, data.test).levels[0].grid
        (4, 4)
    """
    counter = CodeCounter(model)
    over(model, split, 1, counter.count, seed=seed)
    return counter.usage(split)


class CodeCounter:
    """Counts the codes of examples in a pass over a split.

    Args:
        model: A model whose posterior has codes.
    """

    def __init__(self, model: LatentVariableModel) -> None:
        if model.codes is None:
            raise ObjectiveError(
                "The model has no codes.",
                got=type(model.posterior).__name__,
                expected="a posterior over codes",
                remedy="Use recipe 'vq-vae', 'vq-vae-2', 'dvae' or 'gumbel-vae'.",
            )
        self._model, self._codes = model, model.codes
        self._usages = [Usage(k) for k in model.codes.levels]

    def count(self, model: LatentVariableModel, x: Tensor, c: Given | None) -> dict[str, Tensor]:
        """Counts the codes of some examples; the result only satisfies :func:`over`."""
        for usage, codes in zip(self._usages, self._codes.posterior.codes(x, c), strict=True):
            usage.update(codes)
        return {"counted": torch.ones(len(x))}

    def usage(self, split: Split) -> CodeUsage:
        """The usage over all counted examples of a split."""
        levels = tuple(_level(*pair) for pair in zip(self._codes.grids, self._usages, strict=True))
        notes = tuple(_notes(levels, len(split), _remedy(self._model, split)))
        return CodeUsage(*_overall(levels), levels, len(split), split.name, notes)


def _level(grid: tuple[int, ...], usage: Usage) -> LevelUsage:
    largest = usage.counts.max().item() / usage.counts.sum().item()
    return LevelUsage(grid, len(usage.counts), usage.used, usage.perplexity, largest)


def _overall(levels: tuple[LevelUsage, ...]) -> tuple[float, float]:
    positions = [math.prod(level.grid) for level in levels]
    used = sum(level.codes * level.codebook_usage for level in levels) / sum(level.codes for level in levels)
    entropies = [n * math.log(level.perplexity) for n, level in zip(positions, levels, strict=True)]
    return used, math.exp(sum(entropies) / sum(positions))


def _notes(levels: tuple[LevelUsage, ...], n: int, remedy: str) -> Iterator[str]:
    for i, level in enumerate(levels):
        if level.codebook_usage >= LOW:
            continue
        where = "the codebook" if len(levels) == 1 else f"the codebook of level {i + 1} of {len(levels)}, from the top,"
        if (vectors := n * math.prod(level.grid)) < level.codes:
            yield f"{where} has {level.codes} codes, and this split only {vectors} vectors: count over a larger split"
            continue
        used = f"{round(level.codes * level.codebook_usage)} of {level.codes} codes ({level.codebook_usage:.0%})"
        yield f"{where} has collapsed to {used}: {remedy}"


def _remedy(model: LatentVariableModel, split: Split) -> str:
    """The remedy of the model's recipe for unused codes."""
    run = Run(recipe=model.recipe, data=split.spec)
    return offer(run, *against(run, "codes unused"))
