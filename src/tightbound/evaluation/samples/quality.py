r"""How far samples and reconstructions are from data, in the features of a network with a name.

Convention: features are ``(n, d)``, images in [0, 1]. A Fréchet distance has the square of the features' unit and
shrinks as n grows; a kernel distance does not. Numbers can be compared only in the same features of the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ...conditions import Given
from ...data import Data, DataSpec, Split
from ...distributions import CodeDistribution, UniformCodes
from ...models import Marginal, Model
from ...networks.features import Activations
from ...networks.perceptual import perceptual_distance
from ...runtime.modes import evaluating
from ...runtime.randomness import fixed_noise
from ...spec import register
from ...training.classifier import Classifier, labels_of
from ..estimate import Estimate
from ..numbers import Fact, Number
from ..passes import over, require_split
from .distances import DENSITY_NEIGHBOURS, frechet_distance, kernel_distance, support
from .features import FeatureName, Features, FeatureSource, as_images, features_of
from .fidelity import WINDOW, psnr, ssim, window_of

__all__ = ["SampleQuality", "fidelity", "frechet_distance", "sample_quality"]

_SECTION, _UNIT, _THOUSANDTHS = "quality", "features²", "× 10⁻³"
_RECONSTRUCTION = "reconstruction"


@register("sample-quality", record=True)
@dataclass(frozen=True, kw_only=True)
class SampleQuality:
    """Results of :func:`sample_quality`: distances from the examples of a split, lower is better; how samples and
    examples overlap; and how faithful reconstructions are, higher is better but for the perceptual distance.

    Args:
        samples: Fréchet distance of samples of the model, one for each example and given its condition; None without a
            prior.
        reconstructions: Of the examples' reconstructions (of codes, of the most probable ones): what the
            likelihood leaves to a perfect prior.
        uniform: Of samples with uniform codes, where a prior was fitted to codes.
        data: Of as many training examples: the distance that remains by chance.
        kernel_samples: The kernel distance of the same sets; and so on.
        precision: Overlap of samples and examples: see :class:`~tightbound.evaluation.samples.distances.Support`.
        data_precision: Overlap of as many training examples and the examples; and so on.
        psnr: Peak signal-to-noise ratio of reconstructions, mean over the images.
        ssim: Their structural similarity.
        perceptual: Their distance in the features of places.
        features: The network whose features these are.
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
        Estimate | None, Number("Fréchet distance of samples", _SECTION, "{in_features}", unit=_UNIT)
    ] = None
    reconstructions: Annotated[
        Estimate | None, Number("  of reconstructions", _SECTION, "what a perfect prior would have", unit=_UNIT)
    ] = None
    uniform: Annotated[
        Estimate | None, Number("  of samples with uniform codes", _SECTION, "in the same features", unit=_UNIT)
    ] = None
    data: Annotated[Estimate, Number("  of training examples", _SECTION, "what chance leaves", unit=_UNIT)]
    kernel_samples: Annotated[
        Estimate | None,
        Number("kernel distance of samples", _SECTION, "unbiased: 0 on average for the same law", unit=_THOUSANDTHS),
    ] = None
    kernel_reconstructions: Annotated[
        Estimate | None,
        Number("kernel distance of reconstructions", _SECTION, "in the same features", unit=_THOUSANDTHS),
    ] = None
    kernel_data: Annotated[
        Estimate | None,
        Number("kernel distance of training examples", _SECTION, "what chance leaves", unit=_THOUSANDTHS),
    ] = None
    precision: Annotated[
        Estimate | None, Number("precision", _SECTION, "share of samples near an example", digits=3)
    ] = None
    data_precision: Annotated[
        Estimate | None, Number("precision of training examples", _SECTION, "what can be reached", digits=3)
    ] = None
    recall: Annotated[Estimate | None, Number("recall", _SECTION, "share of examples near a sample", digits=3)] = None
    data_recall: Annotated[
        Estimate | None, Number("recall of training examples", _SECTION, "what can be reached", digits=3)
    ] = None
    density: Annotated[
        Estimate | None, Number("density", _SECTION, "number of examples near a sample, of those expected", digits=3)
    ] = None
    data_density: Annotated[
        Estimate | None, Number("density of training examples", _SECTION, "what can be reached", digits=3)
    ] = None
    coverage: Annotated[
        Estimate | None, Number("coverage", _SECTION, "share of examples with a sample among the nearest", digits=3)
    ] = None
    data_coverage: Annotated[
        Estimate | None, Number("coverage of training examples", _SECTION, "what can be reached", digits=3)
    ] = None
    accuracy: Annotated[
        Estimate | None,
        Number("labels told by the features", _SECTION, "how much they see of the data", digits=1, percent=True),
    ] = None
    psnr: Annotated[
        Estimate | None, Number("PSNR", _RECONSTRUCTION, "of reconstructions, mean over the images", unit="dB")
    ] = None
    ssim: Annotated[
        Estimate | None, Number("SSIM", _RECONSTRUCTION, "of reconstructions: 1 where they equal the data", digits=4)
    ] = None
    perceptual: Annotated[
        Estimate | None,
        Number("perceptual distance", _RECONSTRUCTION, "between features of places, as in LPIPS", digits=4),
    ] = None
    features: FeatureSource | None = None
    n: int
    split: str
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Fact]:
        """Values for the labels: the features."""
        return {"in_features": f"in {self.features or 'features of a classifier'}"}


def sample_quality(
    model: Model,
    data: Data,
    split: Split | None = None,
    *,
    features: FeatureName | Callable[[Tensor], Tensor] = "auto",
    seed: int = 0,
) -> SampleQuality:
    """How far samples and reconstructions of a model are from the data, in the features of a network.

    A sample is the mean of p(x | z) for a sample of z, as in the images; without a latent a sample of p(x). A
    reconstruction is the mean of p(x | z) at the representative z of an example. PSNR and SSIM are of images in [0, 1].

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017).
        Demystifying MMD GANs (Bińkowski et al., 2018).

    Args:
        model: The model, on the device to compute on.
        data: Its training split trains the classifier, and is the floor; the classifier needs labels.
        split: The examples to be compared with; default: those of the test split.
        features: As for :func:`~tightbound.evaluation.samples.features.features_of`.
        seed: Of all noise, and of the classifier.

    Raises:
        DataError: If a classifier is needed, and there are no labels.
        UsageError: If the split is empty, or the features are not available.
        ObjectiveError: If the model has neither a prior nor reconstructions.

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
    seen = features_of(features, data, seed=seed, device=model.device)
    values = over(model, split, 1, _found(seen, split.spec), seed=seed)
    own, classifier = values.pop("data"), seen.classifier
    told = {name: Estimate.of(values.pop(name)) for name in ("psnr", "ssim", "perceptual") if name in values}
    values["data"] = _features_of(data.train.evenly_spaced(len(split)), seen, model.device, seed)
    accuracy = None if classifier is None else _accuracy(classifier, own, split)
    source = seen.source(own.shape[1])
    notes = (*_notes(own, accuracy, source, model.can_sample), *_on_images(split.spec, told))
    if split.name == data.train.name:
        notes += ("these are training examples, so the floor compares them with themselves: measure another split",)
    return SampleQuality(
        **_distances(values, own, seed),
        **told,
        accuracy=accuracy,
        features=source,
        n=len(split),
        split=split.name,
        notes=notes,
    )


def _distances(values: dict[str, Tensor], own: Tensor, seed: int) -> dict[str, Estimate]:
    """Every distance of each set of features from those of the examples, by the name of its field."""
    found = {name: frechet_distance(value, own, seed=seed) for name, value in values.items()}
    for name in values.keys() - {"uniform"}:
        found[f"kernel_{name}"] = kernel_distance(values[name], own, seed=seed)
    for name, prefix in (("samples", ""), ("data", "data_")):
        if name in values and min(len(values[name]), len(own)) > DENSITY_NEIGHBOURS:
            found |= {f"{prefix}{each}": v for each, v in support(values[name], own)._asdict().items()}
    return found


def _found(features: Features, spec: DataSpec) -> Callable[..., dict[str, Tensor]]:
    """What is found of each example: features of itself, its reconstruction, and samples given its condition."""

    def found(model: Model, x: Tensor, c: Given | None) -> dict[str, Tensor]:
        images = {"data": x, **_images(model, x, c)}
        seen = {name: features.see(image) for name, image in images.items()}
        values = {name: each.pooled.flatten(1) for name, each in seen.items()}
        if "reconstructions" in images:
            values |= fidelity(x, images["reconstructions"], (seen["data"], seen["reconstructions"]), spec)
        return values

    return found


def _images(model: Model, x: Tensor, c: Given | None) -> dict[str, Tensor]:
    """Samples, reconstructions and samples with uniform codes, as far as the model has them."""
    px = model(c)
    leading = () if px.batch_shape else (len(x),)
    if not isinstance(px, Marginal):
        return {"samples": px.sample(leading)}
    images = {"samples": px.likelihood(px.sample_latent(leading)).mean} if model.can_sample else {}
    images["reconstructions"] = px.likelihood(px.representative(x)).mean
    prior = px.prior() if model.can_sample else None
    if isinstance(prior, CodeDistribution) and not isinstance(prior, UniformCodes):  # it has learned another
        images["uniform"] = px.likelihood(UniformCodes(prior.space).sample((len(x),))).mean
    return images


def fidelity(x: Tensor, rebuilt: Tensor, seen: tuple[Activations, Activations], spec: DataSpec) -> dict[str, Tensor]:
    """PSNR, SSIM and perceptual distance of each reconstruction, by name, ``(n,)``; of images only.

    Args:
        x: Examples as a model sees them.
        rebuilt: Their reconstructions.
        seen: What a network sees in both.
        spec: Of the data.
    """
    if len(spec.shape) != 3:
        return {}
    images, others = as_images(x, spec), as_images(rebuilt, spec)
    found = {"psnr": psnr(images, others), "ssim": ssim(images, others)}
    maps = [[each.double() for each in one.maps] for one in seen]
    return found | ({"perceptual": perceptual_distance(*maps).cpu()} if maps[0] else {})


@torch.no_grad()
def _features_of(split: Split, features: Features, device: torch.device, seed: int) -> Tensor:
    with fixed_noise(seed):
        return torch.cat([features.see(batch.x).pooled.cpu() for batch in split.batches(500, device)])


@torch.no_grad()
def _accuracy(classifier: Classifier, features: Tensor, split: Split) -> Estimate:
    with evaluating(classifier):
        chosen = classifier.head(features.to(next(classifier.parameters()).device)).argmax(1).cpu()
    return Estimate.of((chosen == labels_of(split.labels).cpu()).double())


def _notes(features: Tensor, accuracy: Estimate | None, source: FeatureSource, samples: bool) -> Iterator[str]:
    n, d = features.shape
    yield f"{n} examples in {source}: compare these numbers only with others of as many, in the same features"
    yield "kernel distances: polynomial of degree 3, all pairs, unbiased, times 1000"
    if not samples:
        yield "the model has no prior, so only its reconstructions are measured"
    if n < 10 * d:
        yield f"{n} examples are few for the moments of {d:,} features: Fréchet distances are much too large by chance"
    if accuracy is not None and accuracy.value < 0.5:
        yield f"the features tell only {accuracy.value:.0%} of the labels: they see little of the data"


def _on_images(spec: DataSpec, told: dict[str, Estimate]) -> Iterator[str]:
    if "ssim" in told and (side := window_of(*spec.shape[1:])) < WINDOW:
        yield f"SSIM has a window of {side} × {side} pixels here, not 11 × 11: the images are small"
