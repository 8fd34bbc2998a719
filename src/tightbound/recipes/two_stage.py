"""Two-stage models: a better prior, fitted to the latents of a model that is trained already."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..errors import UsageError
from ..options.data import DataOptions
from ..options.objectives import LogPrior
from ..options.parts import ConditionOptions, TextPositions, check_sizes
from ..options.training import TrainingOptions
from ..spec import check_choices, register
from .base import Recipe

__all__ = ["PriorOptions", "TwoStage", "is_code_space"]


@register("prior-options")
@dataclass(frozen=True)
class PriorOptions(ConditionOptions):
    """What the prior of the second stage is.

    Raises:
        UsageError: If an option is out of range.

    Example:
        >>> PriorOptions(prior="transformer", width=64, layers=2).width
        64
    """

    prior: Literal["auto", "pixelcnn", "transformer", "mixture", "flow"] = "auto"
    """pixelcnn or transformer over codes; mixture of gaussians or flow over vectors; auto: pixelcnn or flow."""
    text_positions: TextPositions = "learned"
    """Places of a text in front of a transformer: a learned vector for each, or queries and keys turned by them."""
    layers: int = 8
    """Layers of a pixelcnn or transformer."""
    channels: int = 64
    """Channels of a pixelcnn."""
    kernel: int = 5
    """Odd side of its kernels."""
    attention_every: int = 0
    """Attention behind every so many layers of the top level's pixelcnn (0: none)."""
    width: int = 256
    """Width of a transformer."""
    heads: int = 8
    """Attention heads."""
    dropout: float = 0.1
    """Dropout of a pixelcnn or transformer."""
    components: int = 100
    """Components of a mixture."""
    transforms: int = 4
    """Transformations of a flow."""

    def __post_init__(self) -> None:
        check_choices(self)
        names = ("layers", "channels", "kernel", "width", "heads", "components", "transforms")
        check_sizes(**{name: getattr(self, name) for name in names})
        for name in ("dropout", "drop_condition"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} is a probability.", got=getattr(self, name), expected=f"0 <= {name} < 1")


@register("two-stage")
@dataclass(frozen=True)
class TwoStage(Recipe):
    r"""A trained model whose prior is replaced by one that was fitted to its latents: `tightbound fit-prior`.

    .. math:: \max_{p(z \mid c)} \mathbb{E}_{q(z \mid x)} \log p(z \mid c)

    The posterior is frozen; over codes it is, from now on, the point at its mode, so that one and the same code of an
    example is learned from, evaluated and decoded (as the image tokens of DALL-E are).

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).
        Diagnosing and Enhancing VAE Models (Dai and Wipf, 2019).
        Zero-Shot Text-to-Image Generation (Ramesh et al., 2021).

    Args:
        first: The recipe of the first stage.
        second: The prior.
        first_training: How the first stage was trained, to say how it is made again.
        first_data: On what.

    Raises:
        UsageError: If the prior does not suit the latents.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> recipe = TwoStage(VAE(latent_dim=2, hidden=(8,)), PriorOptions(prior="mixture", components=5))
        >>> recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=17))().sample((3,)).shape
        torch.Size([3, 1, 8, 8])
    """

    by_itself: ClassVar[bool] = False

    first: Recipe
    """The recipe of the first stage."""
    second: PriorOptions = dataclasses.field(default_factory=PriorOptions)
    """The prior."""
    first_training: TrainingOptions | None = None
    """How the first stage was trained."""
    first_data: DataOptions | None = None
    """What the first stage was trained on."""

    @property
    def training_objective(self) -> LogPrior:
        return LogPrior()


def is_code_space(posterior: object) -> bool:
    """Whether its latents stand for codes."""
    return hasattr(posterior, "codes_of") and hasattr(posterior, "grids")
