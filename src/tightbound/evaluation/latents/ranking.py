"""Unsupervised ranking of models by disentanglement: by the similarity of their latents, without factors.

Convention: codes are ``(n, d)`` of the same examples, one table per model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ...errors import ShapeError, UsageError
from .factors import constant, squared_correlation, standard

__all__ = ["udr"]


def udr(
    codes: Sequence[Tensor],
    *,
    kl: Sequence[Tensor] | None = None,
    similarity: Literal["spearman", "lasso"] = "spearman",
    informative: float = 0.01,
) -> Tensor:
    r"""Unsupervised disentanglement ranking: whether models trained from different seeds find the same latents.

    .. math:: \mathrm{UDR}_{ij} = \frac{1}{d_i + d_j} \Bigl[ \sum_b \frac{\max_a R_{ab}^2}{\sum_a R_{ab}}
        + \sum_a \frac{\max_b R_{ab}^2}{\sum_b R_{ab}} \Bigr]

    with :math:`R_{ab}` the similarity of latent a of model i and b of model j, over informative latents only. A model's
    score is its median over the others: disentangled models are similar, others differ from each other.

    References:
        Unsupervised Model Selection for Variational Disentangled Representation Learning (Duan et al., 2020).

    Args:
        codes: Codes of two or more models, ``(n, d_i)`` of the same n examples.
        kl: Mean KL of each latent of each model, ``(d_i,)``, nats; without it a latent is informative unless constant.
        similarity: Absolute rank correlation, or absolute weights of a lasso between standardised codes.
        informative: Minimum KL of an informative latent, nats.

    Returns:
        ``(models,)``, from 0 to 1.

    Raises:
        ShapeError: If the codes, or their KLs, do not belong together.
        UsageError: If a model has no informative latent, or a value is not finite.

    Example:
        >>> z = torch.randn(5000, 3)
        >>> bool((udr([z, -z.flip(1), z.exp()]) > 0.9).all())
        True
    """
    if similarity not in ("spearman", "lasso"):
        raise UsageError("Unknown similarity.", got=repr(similarity), expected="spearman or lasso")
    used = [standard(part) for part in _informative(codes, kl, informative)]
    compare = _rank_similarity if similarity == "spearman" else _lasso_similarity
    models = range(len(used))
    pairs = [[_likeness(compare(used[i], used[j])) for j in models if j != i] for i in models]
    return torch.tensor(pairs, dtype=torch.float64).quantile(0.5, dim=1)


def _informative(codes: Sequence[Tensor], kl: Sequence[Tensor] | None, least: float) -> list[Tensor]:
    shapes = [tuple(part.shape) for part in codes]
    if len(codes) < 2 or any(part.dim() != 2 or len(part) != len(codes[0]) or not part.numel() for part in codes):
        raise ShapeError("Codes must be of the same examples.", got=shapes, expected="two or more (n, d)")
    if kl is not None and [tuple(part.shape) for part in kl] != [shape[1:] for shape in shapes]:
        raise ShapeError("The KLs must be one per latent.", got=[tuple(part.shape) for part in kl], expected="(d,)")
    used = []
    for i, part in enumerate(codes):
        part = part.detach().cpu().double()
        if not part.isfinite().all():
            raise UsageError("The codes are not finite.", got=f"model {i}")
        kept = ~constant(part) if kl is None else ~constant(part) & (kl[i].cpu() > least)
        if not kept.any():
            raise UsageError("A model has no informative latent.", got=f"model {i}", remedy="Leave it out.")
        used.append(part[:, kept])
    return used


def _ranks(table: Tensor) -> Tensor:
    """The rank of each entry in its column; ties share their mean rank."""
    columns = []
    for column in table.T:
        _, place, counts = column.unique(return_inverse=True, return_counts=True)
        columns.append((counts.cumsum(0) - (counts - 1) / 2)[place])
    return torch.stack(columns, dim=1).double()


def _rank_similarity(a: Tensor, b: Tensor) -> Tensor:
    return squared_correlation(_ranks(a), _ranks(b)).sqrt()


def _lasso_similarity(a: Tensor, b: Tensor) -> Tensor:
    from sklearn.linear_model import Lasso

    return torch.from_numpy(Lasso(alpha=0.1).fit(a.numpy(), b.numpy()).coef_).double().reshape(b.shape[1], -1).abs().T


def _likeness(similarity: Tensor) -> float:
    """Similarity of two models: 1 if their latents match one to one."""
    one_way, other = ((similarity.amax(i).square() / similarity.sum(i).clamp(min=1e-300)).sum() for i in (0, 1))
    return ((one_way + other) / sum(similarity.shape)).item()
