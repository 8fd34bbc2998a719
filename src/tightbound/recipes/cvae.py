"""The conditional variational autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from ..errors import UsageError
from ..options.data_spec import DataSpec
from .base import register_version_2
from .vae import VAE

if TYPE_CHECKING:
    from torch import nn

    from ..conditions import Condition
    from ..models.latent import LatentVariableModel

__all__ = [
    "CVAE",
    "ConditionName",
    "Conditioned",
    "TextPositions",
    "condition_of",
    "embedding_of",
    "prefix_of",
    "rotary_places",
]

ConditionName = Literal["auto", "class", "vector", "image", "text"]
TextPositions = Literal["learned", "rotary"]


@register_version_2("cvae")
@dataclass(frozen=True)
class CVAE(VAE):
    r"""Conditional variational autoencoder: prior, posterior and likelihood are given a class, vector, image or text.

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
        >>> import torch
        >>> CVAE(latent_dim=2, hidden=(32,)).build(spec)(torch.tensor([[7]])).sample().shape
        torch.Size([1, 1, 8, 8])
    """

    first_options: ClassVar[tuple[str, ...]] = ("condition", "latent_dim")

    prior: Literal[  # pyright: ignore[reportIncompatibleVariableOverride]
        "normal", "conditional", "diagonal", "mixture", "coupling", "spline"
    ] = "conditional"
    """p(z given c): conditional (a gaussian that c gives); the others do not depend on c."""
    condition: ConditionName = "auto"
    """What the model is given; auto: the class of an example where there are classes, else the numbers beside it, else
    its text."""
    vocabulary: int = 2048
    """Tokens of a text at most; 256 of them are the bytes."""
    caption_length: int = 32
    """Tokens of the longest text."""
    condition_dim: int = 32
    """Features of the condition that each network is shown."""
    drop_condition: float = 0.0
    """Probability with which training shows no condition, so that the model also learns p(x); guidance needs some."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.condition_dim < 1:
            raise UsageError(
                "A condition needs a feature.", got=f"--condition-dim {self.condition_dim}", expected="1 or more"
            )
        if not 0 <= self.drop_condition <= 1:
            raise UsageError("A probability lies between 0 and 1.", got=f"drop_condition {self.drop_condition}")

    def assemble(self, data: DataSpec) -> LatentVariableModel:
        from ..assembly import parts
        from ..models.latent import LatentVariableModel

        condition, dim = condition_of(self, data), self.condition_dim
        q, px = parts.posterior(self, data, dim), parts.likelihood(self, data, dim)
        q.embedding, px.embedding = (embedding_of(condition, dim) for _ in range(2))
        p = _prior(self, condition) if self.prior == "conditional" else parts.prior(self, data, q)
        model = LatentVariableModel(p, px, q)
        model.condition = condition
        return model


def _prior(recipe: CVAE, condition: Condition) -> nn.Module:
    from ..networks import MLP
    from ..priors import ConditionalNormal

    network = MLP(recipe.condition_dim, 2 * recipe.latent_dim, recipe.hidden[:1], recipe.activation)
    return ConditionalNormal(network, embedding_of(condition, recipe.condition_dim), recipe.condition_dim)


class Conditioned(Protocol):
    """Abstract: options of what a model is given."""

    @property
    def condition(self) -> str: ...
    @property
    def drop_condition(self) -> float: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def caption_length(self) -> int: ...


def condition_of(options: Conditioned, data: DataSpec) -> Condition:
    """The condition that the options name, of that data.

    Raises:
        UsageError: If the data has none.
    """
    from ..conditions import ClassCondition, TextCondition, VectorCondition

    numbers = {0: "", 1: "vector"}.get(len(data.condition_shape), "image")
    there = [*(["class"] if data.classes else []), *([numbers] if numbers else []), *(["text"] * data.captioned)]
    name = options.condition if options.condition != "auto" or not there else there[0]
    if name not in there:
        raise UsageError(
            "This data does not come with that condition.",
            got=name,
            expected=", ".join(there) or "classes, numbers beside the examples, or captions; it has none of them",
            remedy="Use data in class sub-folders, with a metadata.jsonl, or an .npz with 'y' or 'c'; or recipe 'vae'.",
        )
    if name == "class":
        return ClassCondition(data.classes, options.drop_condition, data.absent)
    if name == "text":
        return TextCondition(options.vocabulary, options.caption_length, options.drop_condition)
    return VectorCondition(data.condition_shape, options.drop_condition)


def embedding_of(condition: Any, dim: int) -> nn.Module:
    """Features of a condition, learned anew for every part that is shown them."""
    from ..conditions import ClassCondition, TextCondition
    from ..networks import ClassEmbedding, ImageEmbedding, Observed, TokenEmbedding

    if isinstance(condition, TextCondition):
        return TokenEmbedding(condition.vocabulary, condition.size, dim)

    if isinstance(condition, ClassCondition):
        return ClassEmbedding(len(condition.classes), dim)
    return ImageEmbedding(condition.shape, dim) if len(condition.shape) == 3 else Observed(condition.size, dim)


def prefix_of(condition: Any, width: int, positions: TextPositions = "learned") -> nn.Module | None:
    """What stands in front of a transformer: the tokens of a text, or features of another condition."""
    from ..autoregressive import TokenPrefix
    from ..conditions import TextCondition

    if isinstance(condition, TextCondition):
        return TokenPrefix(condition.vocabulary, condition.size, width, positions)
    return embedding_of(condition, width) if condition else None


def rotary_places(condition: Any, positions: TextPositions, behind: int = 0) -> int:
    """The longest prefix whose places a transformer turns: that of a text, with so many entries behind it."""
    from ..conditions import TextCondition

    return condition.size + behind if positions == "rotary" and isinstance(condition, TextCondition) else 0
