r"""Classifiers of noised data, and models that are guided by them or by other models.

Convention: noised data are in the units of the denoiser.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F
from torch.types import _size

from ..conditions import ClassCondition, Given
from ..distributions import Sampling
from ..distributions.contract import Value
from ..errors import ObjectiveError, UsageError
from ..likelihoods import Measure
from ..models import Model
from ..objectives.rows import rows
from ..options.data_spec import DataSpec
from ..options.direct import NoisyClassification
from .denoiser import Denoise, Denoiser
from .guidance import Classified, Guided
from .guides import Guide, Weaker, given
from .model import Diffused, Diffusion
from .paths import expanded
from .schedules import Schedule
from .times import stratified

__all__ = ["ClassProbabilities", "GuidedDiffusion", "NoisyClassifier"]


class NoisyClassifier(Model, Guide):
    r"""The class of noised data, :math:`p(c \mid x_\sigma)`: what guides a diffusion model that knows no classes.

    References:
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021).

    Args:
        network: From inputs of unit variance and :math:`\gamma` to logits.
        schedule: Of the noise levels in training.
        condition: The classes.
        shift: a of the units of the denoiser, :math:`(x - a) / b`.
        scale: b.

    Example:
        >>> from tightbound.diffusion import Linear
        >>> from tightbound.networks.level_classifier import VectorLevelClassifier
        >>> network = VectorLevelClassifier(2, 3, 16)
        >>> classifier = NoisyClassifier(network, Linear(-8.0, 8.0), ClassCondition(("a", "b", "c")))
        >>> classifier.log_probabilities(torch.zeros(5, 2), torch.tensor(1.0))[0]
        tensor([-1.0986, -1.0986, -1.0986], grad_fn=<SelectBackward0>)
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        condition: ClassCondition,
        *,
        shift: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, self.schedule, self.shift, self.scale = network, schedule, shift, scale
        self.condition = condition

    def forward(self, c: Given | None = None) -> Distribution:
        """What the classifier says of examples with the classes c.

        Raises:
            UsageError: If these are not its conditions.
        """
        self.require_conditions(c)
        return ClassProbabilities(self, c)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The network, its only part."""
        return {"classifier": self.network}

    @property
    def can_sample(self) -> bool:
        """It tells classes, not data."""
        return False

    def measure(self, data: DataSpec) -> Measure:
        """It has no likelihood of data."""
        return Measure("none", "a classifier has no likelihood of its data")

    def log_probabilities(self, x: Tensor, sigma: Tensor) -> Tensor:
        r""":math:`\ln p(c \mid x_\sigma)` of all classes, ``(n, classes)``.

        Args:
            x: Noised data, ``(n, *event)``.
            sigma: Ratios of noise to signal, ``(n)`` or none.
        """
        sigma = sigma.to(x.dtype).expand(len(x))
        z = x / (1 + expanded(sigma, x).square()).sqrt()
        return self.network(z, 2 * sigma.log()).log_softmax(-1)

    def guiding(self, denoiser: Denoiser, c: Given | None, how: Sampling) -> Denoise:
        """A denoiser guided to classes."""
        if c is None:
            raise UsageError("A classifier guides to a class.", got="samples without one", remedy="Add --condition.")
        kind = c["class"].long()
        of = lambda x, sigma: self.log_probabilities(x, sigma).gather(-1, kind).squeeze(-1)
        weak = given(denoiser, None)
        if (how.interval, how.rescale) == ((0.0, math.inf), 0.0):
            return Classified(weak, of, how.guidance)
        return Guided(Classified(weak, of), weak, how.guidance, interval=how.interval, rescale=how.rescale)


class ClassProbabilities(Value):
    """What a classifier says of noised examples with given classes.

    Args:
        model: The classifier.
        c: The classes, ``(n)``.
    """

    def __init__(self, model: NoisyClassifier, c: Given | None) -> None:
        self.model, self.c = model, c
        super().__init__(torch.Size() if c is None else c.shape, validate_args=False)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Not possible.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "A classifier tells classes: it has no samples.",
            got=self.model.origin,
            remedy="Sample a diffusion model with its help: tightbound sample RUN --guide-with CLASSIFIER.",
        )

    def log_prob(self, value: Tensor) -> Tensor:
        raise ObjectiveError(
            "A classifier of noised data has no likelihood of its data.",
            got=self.model.origin,
            remedy="Its log-probabilities and accuracy are in metrics.jsonl; it serves sample --guide-with.",
        )

    def of_noised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probability of each example's class at a random noise level, nats, and whether it is the largest.

        Args:
            x: Data, ``(n, *event)``.
        """
        if self.c is None:
            raise UsageError("A classifier needs the classes of its examples.", remedy="Use data with labels.")
        model, u = self.model, (x - self.model.shift) / self.model.scale
        sigma = (model.schedule(stratified(len(x), device=x.device, dtype=u.dtype)) / 2).exp()
        found = model.log_probabilities(u + expanded(sigma, u) * torch.randn_like(u), sigma)
        kind = self.c["class"].long().squeeze(-1)
        return -F.nll_loss(found, kind, reduction="none"), (found.argmax(-1) == kind).to(found.dtype)


@rows.register
def classified(o: NoisyClassification, px: ClassProbabilities, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    """The log-probability of each example's class, noised, and whether it is the largest, ``(2, n)``."""
    return torch.stack(px.of_noised(x))


class GuidedDiffusion(Model):
    r"""A diffusion model whose samples are guided by a classifier, or by a weaker model.

    With a classifier it is conditioned on its classes: at a strength of 1, :math:`p(x \mid c) \propto p(x) \, p(c \mid
    x)`.

    Args:
        model: The diffusion model; if a classifier guides, without a condition, or used as if its class were dropped.
        guide: The classifier, or the weaker model of the same data.

    Raises:
        UsageError: If they are not of the same data, or a guide has conditions that the model lacks.

    Example:
        >>> from tightbound.diffusion import GaussianOracle, Linear
        >>> oracles = (GaussianOracle(torch.zeros(1), torch.full((1,), variance)) for variance in (1.0, 3.0))
        >>> strong, weak = (Diffusion(oracle, Linear(-9.0, 9.0), (1,)) for oracle in oracles)
        >>> GuidedDiffusion(strong, weak)().sample((4,), Sampling(guidance=2.0)).shape
        torch.Size([4, 1])
    """

    def __init__(self, model: Diffusion, guide: NoisyClassifier | Diffusion) -> None:
        super().__init__()
        self.model, self.guide = model, guide
        _require_same_units(model, guide)
        if isinstance(guide, NoisyClassifier):
            _require_classes(model, guide)
        else:
            _require_known_conditions(model, guide)
        self.condition = guide.condition if isinstance(guide, NoisyClassifier) else model.condition
        self.recipe, self.data_spec, self.loaded_weights = model.recipe, model.data_spec, model.loaded_weights

    def forward(self, c: Given | None = None) -> Distribution:
        """The distribution of x given c.

        Raises:
            UsageError: If these are not its conditions.
        """
        self.require_conditions(c)
        return Diffused(self.model, c, self._guide())

    def _guide(self) -> Guide:
        if not isinstance(self.guide, NoisyClassifier):
            return Weaker(self.guide.denoiser)
        return self.guide if self.model.condition is None else _WithoutCondition(self.guide)

    def measure(self, data: DataSpec) -> Measure:
        """Guided samples are of no stated density."""
        return Measure("none", "guided samples are of no stated density")


class _WithoutCondition(Guide):
    """A classifier that guides a model with a condition, as if it had been dropped."""

    def __init__(self, classifier: NoisyClassifier) -> None:
        self.classifier = classifier

    def guiding(self, denoiser: Denoiser, c: Given | None, how: Sampling) -> Denoise:
        gone = None if c is None else c.missing()
        return self.classifier.guiding(cast(Denoiser, lambda x, sigma, _: denoiser(x, sigma, gone)), c, how)


def _require_classes(model: Diffusion, guide: NoisyClassifier) -> None:
    """Refuses a model with other conditions than the classes, or that never was without them."""
    own = None if model.condition is None else model.condition.parts
    if own is None or (set(own) == {"class"} and model.condition is not None and model.condition.droppable):
        return
    raise UsageError(
        "A classifier guides a model without a condition, or one that was trained to do without its class.",
        got=f"a model given {', '.join(own)}",
        expected="a model trained with --condition none, or with --condition class and --drop-condition above 0",
        remedy="Use --guidance alone: the model was trained with its condition.",
    )


def _require_known_conditions(model: Diffusion, guide: Diffusion) -> None:
    """Refuses a guide whose conditions the model does not have."""
    ours, theirs = ({} if m.condition is None else m.condition.parts for m in (model, guide))
    if theirs and {name: part.size for name, part in ours.items()} != {n: part.size for n, part in theirs.items()}:
        raise UsageError(
            "The guide has other conditions.",
            got=f"a guide given {', '.join(theirs)}",
            expected=f"one given {', '.join(ours)}, or without a condition" if ours else "one without a condition",
            remedy="Train it with the --condition of the run that it guides, or with none.",
        )


def _require_same_units(model: Diffusion, guide: NoisyClassifier | Diffusion) -> None:
    ours, theirs = ((m.shift, m.scale) for m in (model, guide))
    shapes = [None if m.data_spec is None else m.data_spec.shape for m in (model, guide)]
    if ours != theirs or shapes[0] != shapes[1]:
        raise UsageError(
            "The guide was trained on other data.",
            got=f"examples of shape {shapes[1]} in units ({theirs[0]:g}, {theirs[1]:g})",
            expected=f"shape {shapes[0]} in units ({ours[0]:g}, {ours[1]:g})",
            remedy="Train it with the same --data and data options.",
        )
