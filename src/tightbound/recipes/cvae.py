"""The conditional variational autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..errors import UsageError
from ..options.parts import ConditionOptions, NamedConditions
from .continuous import ContinuousRecipe
from .versions import register_version_3

__all__ = ["CVAE"]


@register_version_3("cvae")
@dataclass(frozen=True)
class CVAE(ConditionOptions, ContinuousRecipe):
    r"""Conditional variational autoencoder: conditioned on classes, vectors, images or texts.

    Prior, posterior and likelihood depend on the condition.

    .. math:: \log p(x \mid c) \ge \mathbb{E}_{q(z \mid x, c)} \log p(x \mid z, c) -
        \mathrm{KL}(q(z \mid x, c) \,\|\, p(z \mid c))

    References:
        Semi-Supervised Learning with Deep Generative Models (Kingma, Rezende, Mohamed and Welling, 2014).
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Raises:
        UsageError: If an option is out of range, or the options cannot model the data.

    Example:
        >>> from tightbound.data import DataSpec
        >>> spec = DataSpec("digits", shape=(1, 8, 8), levels=17, classes=tuple("0123456789"))
        >>> model = CVAE(latent_dim=2, hidden=(32,)).build(spec)
        >>> model(model.condition.read("7")).sample((3,)).shape
        torch.Size([3, 1, 8, 8])
    """

    first_options: ClassVar[tuple[str, ...]] = ("condition", "latent_dim")

    prior: Literal["normal", "conditional", "diagonal", "mixture", "coupling", "spline"] = "conditional"
    """p(z given c): conditional (a gaussian that depends on c); the others do not depend on c."""
    condition: Literal["auto", "class", "vector", "image", "text"] | NamedConditions = "auto"
    """Condition of the model, or several, such as class text, dropped independently; auto: the class of an example if
    there are classes, else its numbers, else its text."""
    condition_dim: int = 32
    """Size of the condition's embedding in each network."""
    drop_condition: float = 0.0
    """Probability of dropping the condition in training, so that the model also learns p(x); guidance needs this above
    0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.condition_dim < 1:
            raise UsageError(
                "The condition needs at least one feature.",
                got=f"--condition-dim {self.condition_dim}",
                expected="1 or more",
            )
        if not 0 <= self.drop_condition <= 1:
            raise UsageError(
                "The option drop_condition must be a probability.", got=f"drop_condition {self.drop_condition}"
            )
