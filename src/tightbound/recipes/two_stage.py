"""Two-stage models: a better prior, fitted to the latents of a model that is trained already."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UsageError
from ..options.data import DataOptions
from ..options.data_spec import DataSpec
from ..options.training import TrainingOptions
from ..spec import check_choices, register
from .base import Recipe, check_sizes
from .cvae import TextPositions, condition_of, embedding_of, prefix_of, rotary_places

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..conditions import Condition
    from ..models.latent import LatentVariableModel, Terms

__all__ = ["PriorOptions", "TwoStage"]


@register("prior-options")
@dataclass(frozen=True)
class PriorOptions:
    """What the prior of the second stage is.

    Raises:
        UsageError: If an option is out of range.

    Example:
        >>> PriorOptions(prior="transformer", width=64, layers=2).width
        64
    """

    prior: Literal["auto", "pixelcnn", "transformer", "mixture", "flow"] = "auto"
    """pixelcnn or transformer over codes; mixture of gaussians or flow over vectors; auto: pixelcnn or flow."""
    condition: Literal["none", "auto", "class", "vector", "image", "text"] = "none"
    """What the prior is given."""
    drop_condition: float = 0.1
    """Probability with which training shows no condition: what guidance needs."""
    vocabulary: int = 2048
    """Tokens of a text at most; 256 of them are the bytes."""
    caption_length: int = 32
    """Tokens of the longest text."""
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

    def assemble(self, data: DataSpec) -> LatentVariableModel:
        from ..models.latent import LatentVariableModel
        from ..posteriors import BernoulliPosterior, CategoricalPosterior

        first = self.first.build(data)
        if first.condition is not None:
            raise UsageError(
                "A prior is fitted to latents that do not depend on a condition.",
                got=f"a first stage given {type(first.condition).__name__}",
                remedy="Train the first stage without; the prior can be given one: --condition class.",
            )
        o = self.second
        condition = None if o.condition == "none" else condition_of(o, data)
        prior = _over_codes(first.posterior, o, condition) if is_code_space(first.posterior) else _over_vectors(self, o)
        for part in (first.posterior, first.likelihood):
            part.requires_grad_(False)
        if isinstance(first.posterior, BernoulliPosterior | CategoricalPosterior):
            first.posterior.at_mode = True
        model = LatentVariableModel(prior, first.likelihood, first.posterior)
        model.condition, model.prior_only = condition, True
        return model

    def training_objective(self, terms: Terms, beta: float | Tensor, examples: int) -> Tensor:
        return terms.log_prior.mean(0)

    @property
    def warming(self) -> str:
        return ""

    def bound(self, terms: Terms) -> Tensor:
        from ..objectives import elbo

        return elbo(terms)


def is_code_space(posterior: nn.Module) -> bool:
    """Whether its latents stand for codes."""
    return hasattr(posterior, "codes_of") and hasattr(posterior, "grids")


def _over_codes(posterior: Any, o: PriorOptions, condition: Condition | None) -> nn.Module:
    from ..autoregressive.prior import AutoregressivePrior

    if o.prior not in ("auto", "pixelcnn", "transformer"):
        raise UsageError(
            "This prior is over vectors, and the latents are codes.", got=o.prior, remedy="--prior pixelcnn"
        )
    make = _transformer if o.prior == "transformer" else _pixelcnn
    return AutoregressivePrior(posterior, [make(posterior, i, o, condition) for i in range(len(posterior.grids))])


def _pixelcnn(posterior: Any, level: int, o: PriorOptions, condition: Condition | None) -> Any:
    from ..autoregressive import PixelCNN
    from ..autoregressive.prior import ConvolutionalGrid

    shape, above = posterior.grids[level], posterior.levels[:level]
    network = PixelCNN(
        posterior.levels[level],
        shape if len(shape) > 1 else (1, *shape),
        o.channels,
        o.layers,
        o.kernel,
        attention_every=o.attention_every if level == 0 else 0,
        heads=o.heads,
        dropout=o.dropout,
        condition_dim=o.channels if condition else 0,
        grid_channels=o.channels if above else 0,
    )
    return ConvolutionalGrid(network, embedding_of(condition, o.channels) if condition else None, above)


def _transformer(posterior: Any, level: int, o: PriorOptions, condition: Condition | None) -> Any:
    from ..autoregressive import Transformer
    from ..autoregressive.prior import TransformerGrid

    above = posterior.levels[:level]
    positions = sum(math.prod(grid) for grid in posterior.grids[:level])
    rotary = rotary_places(condition, o.text_positions, positions)
    network = Transformer(
        posterior.levels[level], posterior.grids[level], o.width, o.layers, o.heads, o.dropout, rotary
    )
    embedding = prefix_of(condition, o.width, o.text_positions)
    return TransformerGrid(network, embedding, above, positions)


def _over_vectors(recipe: TwoStage, o: PriorOptions) -> nn.Module:
    from ..priors import FlowPrior, GaussianMixture

    dim = getattr(recipe.first, "latent_dim", None)
    if dim is None:
        raise UsageError("The latents of this recipe are neither codes nor a vector.", got=type(recipe.first).__name__)
    if o.prior not in ("auto", "mixture", "flow"):
        raise UsageError("This prior is over codes, and the latents are vectors.", got=o.prior, remedy="--prior flow")
    if o.condition != "none":
        raise UsageError(
            "A mixture or flow is given no condition.", got=o.condition, remedy="Leave --condition out, or use codes."
        )
    return GaussianMixture(dim, o.components) if o.prior == "mixture" else FlowPrior(dim, "coupling", o.transforms)
