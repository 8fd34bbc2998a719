r"""How far samples are from data, in the features of a classifier that was trained on the data's labels.

Convention: features are ``(n, d)``; a Fréchet distance has the square of their unit, is never negative, and shrinks
as n grows, so that only distances of the same n in the same features can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ...conditions import Given
from ...data import Data, Split
from ...distributions import CodeDistribution, UniformCodes
from ...errors import ShapeError, UsageError
from ...models import Marginal, Model
from ...runtime.modes import evaluating
from ...runtime.randomness import fixed_noise
from ...spec import register
from ...training.classifier import Classifier, labels_of, train_classifier
from ..estimate import Estimate
from ..numbers import Fact, Number
from ..passes import over, require_split

__all__ = ["SampleQuality", "frechet_distance", "sample_quality"]

_SECTION, _UNIT = "quality", "features²"
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


@register("sample-quality", record=True)
@dataclass(frozen=True, kw_only=True)
class SampleQuality:
    """Results of :func:`sample_quality`: Fréchet distances from the examples of a split; lower is better.

    Args:
        samples: Of samples of the model, one for each example and given its condition.
        reconstructions: Of the examples' reconstructions (of codes, of the most probable ones): what the
            likelihood leaves to a perfect prior.
        uniform: Of samples with uniform codes, where a prior was fitted to codes.
        data: Of as many training examples: the distance that remains by chance.
        accuracy: Share of the examples whose label the features tell; None for other features.
        n: Examples, and samples.
        split: Name of the split.
        notes: Notes on these numbers.

    Example:
        >>> one = Estimate(1.0, 0.1)
        >>> SampleQuality(samples=one, data=one, n=100, split="test", notes=()).uniform is None
        True
    """

    samples: Annotated[
        Estimate, Number("Fréchet distance of samples", _SECTION, "in features of a classifier", unit=_UNIT)
    ]
    reconstructions: Annotated[
        Estimate | None, Number("  of reconstructions", _SECTION, "what a perfect prior would have", unit=_UNIT)
    ] = None
    uniform: Annotated[
        Estimate | None, Number("  of samples with uniform codes", _SECTION, "in the same features", unit=_UNIT)
    ] = None
    data: Annotated[Estimate, Number("  of training examples", _SECTION, "what chance leaves", unit=_UNIT)]
    accuracy: Annotated[
        Estimate | None,
        Number("labels told by the features", _SECTION, "how much they see of the data", digits=1, percent=True),
    ] = None
    n: int
    split: str
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Fact]:
        """No values: the labels of its numbers are fixed."""
        return {}


def sample_quality(
    model: Model,
    data: Data,
    split: Split | None = None,
    *,
    features: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> SampleQuality:
    """How far samples of a model are from the data, as Fréchet distance in the features of a classifier.

    A sample is the mean of p(x | z) for a sample of z, as in the images; without a latent a sample of p(x).

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
    require_split(split, model)
    if not model.can_sample:
        model().sample()  # says so, before anything is trained
    device, classifier = model.device, None
    if features is None:
        classifier = train_classifier(data, seed=seed, device=device)
        features = classifier.features
    values = over(model, split, 1, _found(features), seed=seed)
    own = values.pop("data")
    accuracy = None if classifier is None else _accuracy(classifier, own, split)
    values["data"] = _features_of(data.train.evenly_spaced(len(split)), features, device, seed)
    distances = {name: frechet_distance(value, own, seed=seed) for name, value in values.items()}
    notes = tuple(_notes(own, accuracy))
    return SampleQuality(**distances, accuracy=accuracy, n=len(split), split=split.name, notes=notes)


def _found(features: Callable[[Tensor], Tensor]) -> Callable[..., dict[str, Tensor]]:
    """What is found of each example: features of itself, its reconstruction, and samples given its condition."""

    def found(model: Model, x: Tensor, c: Given | None) -> dict[str, Tensor]:
        px = model(c)
        leading = () if px.batch_shape else (len(x),)
        if not isinstance(px, Marginal):
            return _features(features, {"data": x, "samples": px.sample(leading)})
        images = {"data": x, "samples": px.likelihood(px.sample_latent(leading)).mean}
        images["reconstructions"] = px.likelihood(px.representative(x)).mean
        prior = px.prior()
        if isinstance(prior, CodeDistribution) and not isinstance(prior, UniformCodes):  # it has learned another
            images["uniform"] = px.likelihood(UniformCodes(prior.space).sample((len(x),))).mean
        return _features(features, images)

    return found


def _features(features: Callable[[Tensor], Tensor], images: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: features(image).flatten(1) for name, image in images.items()}


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
