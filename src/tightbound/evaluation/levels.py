r"""What each noise level of a diffusion model costs, and what is wrong with its ends.

Convention: :math:`\gamma` is minus the log signal-to-noise ratio; nats are per example.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..conditions import Given
from ..data import Data, Split
from ..diffusion import Diffusion
from ..errors import UsageError
from ..spec import register
from .passes import over

__all__ = ["LevelDiagnosis", "diagnose_levels"]

INTERVALS = 12
DRAWS = 2 * INTERVALS
"""Noise levels of each example."""
PRIOR, RECONSTRUCTION = 0.01, 0.05
"""Nats per dimension above which an end of the schedule is wrong."""
OVERFITTED = 1.1
"""Cost on test examples as a multiple of that on training examples, above which a level is overfitted."""
BY_RATES = "; of a schedule with rates, such as linear-beta, use --schedule linear too"
IDLE, EMPTY = 0.25, 1e-3
"""A share of the levels, and their share of the cost, at which they are idle."""


@register("level-diagnosis", record=True)
@dataclass(frozen=True)
class LevelDiagnosis:
    """What each interval of noise levels costs, and remarks with remedies.

    Args:
        edges: Ends of the intervals of gamma, rising.
        nats: Cost of each interval on the split, nats per example.
        train_nats: The same on training examples.
        prior_term: What the most noise still tells of an example, nats.
        reconstruction: Log-probability of the data given the least noise, nats.
        dimensions: Entries of an example.
        n: Number of examples of the split, and of training examples.
        split: Name of the split.
        remarks: What is wrong, each with its remedy; empty if nothing is.

    Example:
        >>> LevelDiagnosis((-8.0, 0.0, 8.0), (1.0, 3.0), (1.0, 3.0), 0.0, -0.1, 4, 10, "test", ()).dearest
        (0.0, 8.0)
    """

    edges: tuple[float, ...]
    nats: tuple[float, ...]
    train_nats: tuple[float, ...]
    prior_term: float
    reconstruction: float
    dimensions: int
    n: int
    split: str
    remarks: tuple[str, ...]

    @property
    def dearest(self) -> tuple[float, float]:
        """The interval with the highest cost."""
        i = self.nats.index(max(self.nats))
        return self.edges[i], self.edges[i + 1]


def diagnose_levels(model: Diffusion, data: Data, split: Split, *, limit: int = 500, seed: int = 0) -> LevelDiagnosis:
    """Measures what each noise level costs on a split and on training examples.

    Args:
        model: The model, on the device to compute on.
        data: Its data, for training examples.
        split: The examples.
        limit: Number of examples of each, at most.
        seed: Seed of all noise.

    Raises:
        UsageError: If a split is empty, or the limit is below 1.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VDM(channels=(8,), blocks=1).build(data.spec)
        >>> len(diagnose_levels(model, data, data.test, limit=5).nats)
        12
    """
    if limit < 1:
        raise UsageError("At least one example is needed.", got=f"limit {limit}", remedy="Try --limit 500.")
    edges = model.bound.edges(INTERVALS)
    here = _measured(model, _some(split, limit), seed)
    train = _measured(model, _some(data.train, limit), seed)
    prior, reconstruction = (here[name].double().mean().item() for name in ("prior", "reconstruction"))
    nats, ours = (found["nats"].double().mean(0) for found in (here, train))
    sizes = math.prod(model.shape), len(here["prior"]), split.name
    bare = LevelDiagnosis(
        tuple(edges.tolist()), tuple(nats.tolist()), tuple(ours.tolist()), prior, reconstruction, *sizes, ()
    )
    remarks = [
        *_of_the_ends(bare),
        *_of_idle_levels(bare),
        *_of_overfitting(bare, here["nats"], train["nats"]),
    ]
    return LevelDiagnosis(**{**bare.__dict__, "remarks": tuple(remarks)})


def _some(split: Split, limit: int) -> Split:
    n = min(len(split), limit)
    return split.subset(n)


def _measured(model: Diffusion, split: Split, seed: int) -> dict[str, Tensor]:
    def find(m: Diffusion, x: Tensor, c: Given | None) -> dict[str, Tensor]:
        terms = m(c).terms(x, DRAWS, intervals=INTERVALS)
        prior, diffusion = (entry.kl() for entry in terms.entries)
        return {"nats": diffusion, "prior": prior.sum(-1), "reconstruction": terms.log_likelihood.mean(0)}

    return over(model, split, DRAWS, find, seed=seed)


# -- remarks ----------------------------------------------------------------------------------------------------------


def _of_the_ends(found: LevelDiagnosis) -> list[str]:
    remarks = list[str]()
    prior, lost = found.prior_term / found.dimensions, -found.reconstruction / found.dimensions
    if prior > PRIOR:
        end = found.edges[-1] + math.log(prior / PRIOR) + 1
        remarks.append(
            f"The most noise still tells of an example: {found.prior_term:.2f} nats, {prior:.3f} for each dimension. "
            f"Remedy: --last-gamma {end:.1f}, or more{BY_RATES}."
        )
    if lost > RECONSTRUCTION:
        remarks.append(
            f"The least noise hides the data: {-found.reconstruction:.2f} nats, {lost:.3f} for each dimension, are "
            f"lost at its end. Remedy: --first-gamma {found.edges[0] - 2:.1f}, or auto{BY_RATES}."
        )
    return remarks


def _of_idle_levels(found: LevelDiagnosis) -> list[str]:
    total, spent = sum(found.nats), 0.0
    for i, nats in enumerate(found.nats):
        spent += nats
        if spent > EMPTY * total:
            if i / len(found.nats) < IDLE:
                return []
            return [
                f"Noise levels below gamma {found.edges[i]:.1f} cost nothing. Remedy: --first-gamma "
                f"{found.edges[i]:.1f}, so that training sees the others more often."
            ]
    return []


def _of_overfitting(found: LevelDiagnosis, test: Tensor, train: Tensor) -> list[str]:
    worse = (test.double().mean(0) - train.double().mean(0)) > 3 * (
        test.double().var(0) / len(test) + train.double().var(0) / len(train)
    ).sqrt()
    far = torch.tensor(found.nats) > OVERFITTED * torch.tensor(found.train_nats)
    where = (worse & far).nonzero().flatten().tolist()
    if not where:
        return []
    low, high = found.edges[where[0]], found.edges[where[-1] + 1]
    mine, ours = (sum(each[i] for i in where) for each in (found.nats, found.train_nats))
    return [
        f"It overfits at noise levels from gamma {low:.1f} to {high:.1f}: {mine:.2f} nats on {found.split} examples, "
        f"{ours:.2f} on training examples. Remedy: more data, more --dropout, fewer --channels, or fewer --epochs."
    ]
