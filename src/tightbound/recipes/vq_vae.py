"""Autoencoders with quantised latents: VQ-VAE and VQ-VAE-2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UsageError
from ..options.objectives import Quantized
from ..options.parts import EntryLikelihood, GridNetworks, LikelihoodName, require_sizes
from ..options.priors import LatentSpace
from ..options.remedies import Remedy, halved
from .base import Recipe
from .versions import register_version_2

if TYPE_CHECKING:
    from ..models import Model

__all__ = ["VQVAE", "VQVAE2", "QuantizedRecipe"]


@dataclass(frozen=True)
class QuantizedRecipe(EntryLikelihood, GridNetworks, Recipe):
    """Abstract: shared by both."""

    first_options: ClassVar[tuple[str, ...]] = ("codes", "channels")
    latent_space: ClassVar[LatentSpace] = "codes"
    remedies: ClassVar[tuple[Remedy, ...]] = (
        Remedy(
            "revival",
            "revive unused codes",
            lambda o: {"revive": 0.03} if o["revive"] == 0 and o["quantizer"] != "fsq" else None,
        ),
        Remedy(
            "narrow comparison",
            "compare vectors and codes in fewer dimensions",
            lambda o: {"project": 8} if o["project"] is None and o["code_dim"] > 8 else None,
        ),
        Remedy("fewer codes", "use fewer codes", lambda o: None if o["quantizer"] == "fsq" else halved(o, "codes")),
    )

    codes: int = 512
    """Number of codes of each codebook, K; for fsq the product of its levels."""
    code_dim: int = 64
    """Width of a code vector, d."""
    hidden: int | None = None
    """Channels inside a residual block; default: the same as outside."""
    likelihood: LikelihoodName = "gaussian"
    """p(x given z), as for recipe vae; gaussian weights squared errors, auto gives bits per dimension."""
    variance: float = 0.1
    """Fixed or initial variance of gaussian; a smaller one gives commitment less weight against reconstruction, and
    fewer codes are used; 0.1 suits pixels in [0, 1]."""
    quantizer: Literal["ema", "gradient", "fsq"] = "ema"
    """How the codebook is learned: ema (moving averages), gradient, or fsq (fixed grid, finite scalar quantisation)."""
    decay: float = 0.99
    """Decay of the moving averages, with quantizer ema."""
    commitment: float = 0.25
    """Weight of the encoder's squared distance from its codes, against nats."""
    codebook: float = 1.0
    """Weight of the codes' squared distance from the encoder's output, with quantizer gradient."""
    cosine: bool = False
    """Normalise vectors and codes to length 1 before comparing them."""
    project: int | None = None
    """Dimensions in which vectors and codes are compared, after a learned projection; 8 is common; default: no
    projection."""
    revive: float = 0.03
    """Share of the mean usage below which a code is dead and is replaced; 0: never."""
    fsq_levels: tuple[int, ...] = (8, 8, 8)
    """Levels of each dimension, with quantizer fsq."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in {"codes": 1, "code_dim": 1, "blocks": 0, "hidden": 1, "project": 1}.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise _out_of_range(name, value, f"{least} or more")
        for size in self.channels:
            if size < 1:
                raise _out_of_range("channels", size, "1 or more")
        for name, most in {"commitment": math.inf, "codebook": math.inf, "decay": 1, "revive": 1}.items():
            if not 0 <= (value := getattr(self, name)) < most:
                raise _out_of_range(name, value, f"0 or more, {'finite' if most == math.inf else f'below {most}'}")
        if self.quantizer == "fsq" and (self.cosine or self.project is not None):
            got = " and ".join(["--cosine"] * self.cosine + ["--project"] * (self.project is not None))
            remedy = "Leave --cosine and --project out, or choose another --quantizer."
            raise UsageError(
                "Finite scalar quantisation has no codebook to compare with.", got=f"{got} with fsq", remedy=remedy
            )

    @property
    def training_objective(self) -> Quantized:
        return Quantized(codebook=self.codebook, commitment=self.commitment)

    def cautions(self, model: Model, examples: int) -> list[str]:
        """Warnings about training on that many examples, as sentences."""
        pairs = [] if model.codes is None else zip(model.codes.levels, model.codes.grids, strict=True)
        few = [(k, examples * math.prod(grid)) for k, grid in pairs if k > examples * math.prod(grid)]
        lower = "--fsq-levels" if self.quantizer == "fsq" else "--codes"
        return [f"{k} codes for {n} vectors of all training examples: lower {lower}" for k, n in few]


def _out_of_range(name: str, value: float, expected: str) -> UsageError:
    option = f"--{name.replace('_', '-')}"
    return UsageError(f"{option} is out of range.", got=f"{option} {value:g}", expected=expected)


@register_version_2("vq-vae")
@dataclass(frozen=True)
class VQVAE(QuantizedRecipe):
    r"""VQ-VAE: a grid of codes, each the nearest vector of a codebook.

    .. math:: \log p(x) \ge \log p(x \mid z = e_k) - \sum_i \ln K, \qquad
        k_i = \arg\min_k \lVert f_i(x) - e_k \rVert

    Reports use this bound, with the uniform prior; training maximises :func:`~tightbound.objectives.quantized.vq`.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).
        Finite Scalar Quantization: VQ-VAE Made Simple (Mentzer et al., 2023).

    Raises:
        UsageError: If an option is out of range, or the options cannot model the data: the sides of its images must be
            divisible by 2 once for each entry of ``channels``.

    Example:
        >>> from tightbound.data import DataSpec
        >>> model = VQVAE(codes=16, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> model().sample((5,)).shape
        torch.Size([5, 1, 8, 8])
    """


@register_version_2("vq-vae-2")
@dataclass(frozen=True)
class VQVAE2(QuantizedRecipe):
    r"""VQ-VAE-2: several grids of codes, each given the coarser ones.

    The top encodes global structure, the bottom details.

    .. math:: \log p(x) \ge \log p(x \mid z_{\text{top}}, z_{\text{bottom}}) - \sum_i \ln K

    References:
        Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi, van den Oord and Vinyals, 2019).

    Raises:
        UsageError: If an option is out of range, or the options cannot model the data.

    Example:
        >>> from tightbound.data import DataSpec
        >>> model = VQVAE2(codes=16, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> model.posterior.grids
        ((2, 2), (4, 4))
    """

    variance: float = 0.01
    """As for recipe vq-vae; smaller, since a higher commitment drives information out of the top."""
    coarser: tuple[int, ...] = (1,)
    """Number of further halvings from each grid of codes to the next coarser one, finest first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(coarser=self.coarser)
