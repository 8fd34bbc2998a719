r"""How far samples are from data, in the features of a classifier that was trained on the data's labels.

Convention: features are ``(n, d)``; a Fréchet distance has the square of their unit, is never negative, and shrinks
as n grows, so that only distances of the same n in the same features can be compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...autoregressive import AutoregressivePrior
from ...data import Data, Split
from ...errors import ShapeError, UsageError
from ...models.latent import LatentVariableModel
from ...posteriors import EmptyPosterior
from ...priors.uniform import UniformCodePrior
from ...runtime.modes import evaluating
from ...runtime.randomness import fixed_noise
from ...training.classifier import Classifier, labels_of, train_classifier
from ..collapse.decomposition import spread
from ..estimate import Estimate
from ..passes import check_split, over

__all__ = ["SampleQuality", "frechet_distance", "sample_quality"]

RESAMPLES = 20
"""Bootstrap samples behind a standard error."""


def frechet_distance(a: Tensor, b: Tensor, *, seed: int = 0) -> Estimate:
    r"""Squared Fréchet distance of the Gaussians with the moments of two sets of features.

    .. math:: \lVert \mu_a - \mu_b \rVert^2 + \operatorname{tr}\bigl(\Sigma_a + \Sigma_b
        - 2 (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2}\bigr)

    It is computed in float64, the last trace as the sum of the singular values of
    :math:`\Sigma_a^{1/2} \Sigma_b^{1/2}`; the error is that of bootstrap samples of both sets.

    References:
        The Fréchet Distance between Multivariate Normal Distributions (Dowson and Landau, 1982).
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017).

    Args:
        a: Features ``(n, d)``.
        b: Features ``(m, d)``.
        seed: Of the bootstrap.

    Raises:
        ShapeError: If they are not such, or there are not two of each.
        UsageError: If a feature is not finite.

    Example:
        >>> x = torch.randn(1000, 3)
        >>> round(frechet_distance(x, x + torch.tensor([3.0, 4.0, 0.0])).value, 4)
        25.0
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        got = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ShapeError("These are not features of two sets of examples.", got=got, expected="(n, d) and (m, d)")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise UsageError("A feature is not finite.", remedy="Look at the samples, or train the features anew.")
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    with fixed_noise(seed):
        again = torch.tensor([_frechet(_resampled(a), _resampled(b)) for _ in range(RESAMPLES)])
    return Estimate(_frechet(a, b), again.std().item())


def _resampled(x: Tensor) -> Tensor:
    return x[torch.randint(len(x), (len(x),))]


def _frechet(a: Tensor, b: Tensor) -> float:
    cov_a, cov_b = _covariance(a), _covariance(b)
    overlap = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap
    return distance.clamp(min=0).item()


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


@dataclass(frozen=True)
class SampleQuality:
    """What :func:`sample_quality` found: Fréchet distances from the examples of a split, the less the better.

    Args:
        samples: Of samples of the model, one for each example and given its condition.
        reconstructions: Of the examples' reconstructions (of codes, of the most probable ones): what the
            likelihood leaves to a perfect prior.
        uniform: Of samples with uniform codes, where a prior was fitted to codes.
        data: Of as many training examples: what remains of the distance where nothing differs but chance.
        accuracy: Share of the examples whose label the features tell; None for features of other making.
        n: Examples, and samples.
        split: Which split they are.
        notes: What a reader must know of these numbers.

    Example:
        >>> one = Estimate(1.0, 0.1)
        >>> found = SampleQuality(one, None, None, one, None, n=100, split="test", notes=())
        >>> found.json()["samples"]
        {'value': 1.0, 'standard_error': 0.1}
    """

    samples: Estimate
    reconstructions: Estimate | None
    uniform: Estimate | None
    data: Estimate
    accuracy: Estimate | None
    n: int
    split: str
    notes: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """As ``tightbound evaluate --sample-quality --json`` prints it."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value.json() if isinstance(value, Estimate) else value for name, value in values.items()}


def sample_quality(
    model: LatentVariableModel,
    data: Data,
    split: Split | None = None,
    *,
    features: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> SampleQuality:
    """How far samples of a model are from the data, as Fréchet distance in the features of a classifier.

    A sample is the mean of p(x | z) at a draw of z, as the pictures show it; a draw, where there is no latent.

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017).

    Args:
        model: The model, on the device to compute on.
        data: Labelled data, on whose training split the classifier is trained; with ``features`` it needs no labels.
        split: The examples to be compared with; default: those of the test split.
        features: Others than the classifier's, ``(n, *shape) -> (n, d)``.
        seed: Of all noise, and of the classifier.

    Raises:
        DataError: If there are no labels.
        UsageError: If the split is empty.
        ObjectiveError: If the model has no prior.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> found = sample_quality(model, data, features=lambda x: x.flatten(1))
        >>> found.data.value < found.samples.value
        True
    """
    split = data.test if split is None else split
    check_split(split, model)
    if model.prior is None:
        model().prior()  # says so, before anything is trained
    device, classifier = next(model.parameters()).device, None
    if features is None:
        classifier = train_classifier(data, seed=seed, device=device)
        features = classifier.features
    values = over(model, split, 1, _found(model, features), seed=seed)
    own = values.pop("data")
    accuracy = None if classifier is None else _accuracy(classifier, own, split)
    values["data"] = _features_of(spread(data.train, len(split)), features, device, seed)
    distances = {name: frechet_distance(value, own, seed=seed) for name, value in values.items()}
    found = {name: distances.get(name) for name in ("reconstructions", "uniform")}
    notes = tuple(_notes(own, accuracy))
    return SampleQuality(
        distances["samples"], found["reconstructions"], found["uniform"], distances["data"], accuracy, len(split),
        split.name, notes,
    )  # fmt: skip


def _found(model: LatentVariableModel, features: Callable[[Tensor], Tensor]) -> Callable[..., dict[str, Tensor]]:
    """What is found of each example: features of itself, its reconstruction, and samples given its condition."""
    empty = isinstance(model.posterior, EmptyPosterior)
    coded: Any = model.posterior if isinstance(model.prior, AutoregressivePrior) else None

    def found(model: LatentVariableModel, x: Tensor, c: Tensor | None) -> dict[str, Tensor]:
        px = model(c)
        leading = () if px.batch_shape else (len(x),)
        images = {"data": x, "samples": _shown(px.likelihood(px.sample_latent(leading)), empty)}
        if not empty:
            images["reconstructions"] = px.likelihood(px.representative(x)).mean
        if coded is not None:
            images["uniform"] = px.likelihood(UniformCodePrior(coded)().sample((len(x),))).mean
        return {name: features(image).flatten(1) for name, image in images.items()}

    return found


def _shown(px: Any, empty: bool) -> Tensor:
    return px.sample() if empty else px.mean


@torch.no_grad()
def _features_of(split: Split, features: Callable[[Tensor], Tensor], device: torch.device, seed: int) -> Tensor:
    with fixed_noise(seed):
        return torch.cat([features(batch.x).flatten(1).cpu() for batch in split.batches(500, device)])


@torch.no_grad()
def _accuracy(classifier: Classifier, features: Tensor, split: Split) -> Estimate:
    with evaluating(classifier):
        chosen = classifier.head(features.to(next(classifier.parameters()).device)).argmax(1).cpu()
    return Estimate.of((chosen == labels_of(split.labels).cpu()).double())


def _notes(features: Tensor, accuracy: Estimate | None) -> Iterator[str]:
    n, d = features.shape
    yield f"distances of {n} examples in {d} features: compare them only with others of as many, in the same features"
    if n < 10 * d:
        yield f"{n} examples are few for the moments of {d} features: the distances are much too large by chance"
    if accuracy is not None and accuracy.value < 0.5:
        yield f"the features tell only {accuracy.value:.0%} of the labels: they see little of the data"
