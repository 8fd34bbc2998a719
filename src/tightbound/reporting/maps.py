"""Two-dimensional views of codes: directly, by PCA, and by t-SNE."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["View", "flat_views", "tsne"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """Points of a plane.

    Args:
        title: The projection.
        points: ``(n, 2)``.
        axes: Names of the axes; None for axes without meaning.
        plane: The plane in code space: a code ``(d,)`` at (0, 0) and two directions ``(2, d)``; None if there is none.
    """

    title: str
    points: Array
    axes: tuple[str, str] | None
    plane: tuple[Array, Array] | None = None


def flat_views(codes: Array, names: tuple[str, ...] = ("z0", "z1")) -> tuple[list[View], str]:
    """Views of codes, and the reason if some are missing.

    Args:
        codes: ``(n, d)``.
        names: Of their first two dimensions.

    Example:
        >>> views, why_not = flat_views(np.random.default_rng(0).normal(size=(50, 3)))
        >>> [view.title for view in views]
        ['PCA: 77 % of the variance', 't-SNE: preserves neighbours, not distances']
    """
    if codes.shape[1] < 2:
        return [], "The latent has one dimension; a map needs two."
    if len(codes) < 3 or not np.isfinite(codes).all() or codes.var(0).max() < 1e-12:
        return [], "All posterior means are the same: there is nothing to map."
    views = [_plane(codes, names)]
    if len(codes) < 10:
        return views, "t-SNE needs ten examples."
    title = "t-SNE: preserves neighbours, not distances"
    return [*views, View(title, tsne(codes), None)], ""


def _plane(codes: Array, names: tuple[str, ...]) -> View:
    if codes.shape[1] == 2:
        plane = np.zeros(2), np.eye(2)
        return View("the latent space itself, which has two dimensions", codes, (names[0], names[1]), plane)
    centred = codes - codes.mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    share = (singular[:2] ** 2).sum() / (singular**2).sum()
    title, axes = f"PCA: {100 * share:.0f} % of the variance", ("first component", "second component")
    return View(title, centred @ directions[:2].T, axes, (codes.mean(0), directions[:2]))


def tsne(codes: Array) -> Array:
    """A two-dimensional t-SNE embedding, the same at every call.

    References:
        Visualizing Data using t-SNE (van der Maaten and Hinton, 2008).

    Args:
        codes: ``(n, d)``, at least ten of them.

    Returns:
        ``(n, 2)``.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(codes) - 1) / 3)
    method = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=0)
    # For so few points the threads of OpenMP cost more than they give, on a busy machine ten times as much.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        return method.fit_transform(codes.astype(np.float32)).astype(np.float64)
