"""The autoencoders of latent diffusion: an image to a small grid of latents, Gaussian or quantised, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UsageError
from ..options.adversarial import TwoPlayers
from ..options.data_spec import DataSpec
from ..options.objectives import Elbo, Objective
from ..options.parts import require_sizes
from ..options.priors import LatentSpace
from ..options.published import WIDTH, PublishedQuantized, WeakKL
from ..spec import flag, register
from .base import Recipe

if TYPE_CHECKING:
    from ..models import Model

__all__ = ["GridAutoencoder", "KLAutoencoder", "VQAutoencoder"]

ARCHITECTURE = (
    *("factor", "latent_channels", "channels", "layers", "groups", "mid_attention", "attention", "pointwise"),
    "codes",
)
"""Options that determine the shapes of weights."""


@dataclass(frozen=True)
class GridAutoencoder(TwoPlayers, Recipe):
    """Abstract: shared by both."""

    factor: Literal[2, 4, 8, 16, 32] = 8
    """By how much the grid of latents is smaller than the image, along each side."""
    latent_channels: int = 4
    """Channels of a latent; more keep more of the image, and make the second stage harder to learn."""
    channels: tuple[int, ...] = (32, 64, 128)
    """Channels of each resolution, finest first; the last is repeated as often as the factor needs."""
    layers: int = 1
    """Residual blocks of each resolution in the encoder; the decoder has one more."""
    groups: int = 8
    """Groups of every normalisation; published models have 32."""
    mid_attention: bool = True
    """Attention among the positions of the grid of latents."""
    attention: tuple[int, ...] = ()
    """Finer grids with attention, by how much smaller they are than the image: 4 8."""
    pointwise: bool = True
    """1 x 1 convolutions on both sides of the latent, which absorb its mean and scale at an export."""
    likelihood: Literal["laplace", "gaussian", "discretized-logistic"] = "laplace"
    """p(x given z): laplace (absolute error) and gaussian (squared error) are densities, which give bits per dimension
    of 8-bit images only with --dequantize; discretized-logistic gives their probability."""
    scale: Literal["shared", "fixed"] = "shared"
    """Scale of the likelihood: learned, shared by all entries; or fixed."""
    spread: float = 0.1
    """Fixed or initial scale: b of laplace, the standard deviation of gaussian; images are in [0, 1]."""
    train_crop: int | None = None
    """Train on random crops with this side in pixels, a multiple of the factor, and evaluate on whole images."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    init: str = ""
    """Start from these weights: a run, a folder of diffusers, or a checkpoint of latent-diffusion, whose architecture
    it then has."""
    freeze: Literal["none", "encoder"] = "none"
    """Part that is not trained: with encoder, latents stay those of --init, bit for bit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {"latent_channels": self.latent_channels, "channels": self.channels, "layers": self.layers}
        require_sizes(**sizes, groups=self.groups)
        self.two_players(Elbo())
        if not 0 < self.spread < math.inf:
            raise UsageError("A scale must be positive.", got=self.spread, remedy="Try --spread 0.1.")
        if len(self.channels) > self.resolutions:
            raise UsageError(
                f"The factor {self.factor} has {self.resolutions} resolutions.",
                got=f"--channels {' '.join(map(str, self.channels))}",
                expected=f"at most {self.resolutions} numbers",
                remedy="Leave the last ones out, or raise --factor.",
            )
        known = [1 << level for level in range(self.resolutions)]
        if unknown := [each for each in self.attention if each not in known]:
            raise UsageError(
                "The network has no such grid.", got=f"--attention {unknown[0]}", expected=f"some of {known}"
            )
        if self.train_crop is not None and (self.train_crop < self.factor or self.train_crop % self.factor):
            raise UsageError(
                "The side of a crop must be a multiple of the factor.",
                got=f"--train-crop {self.train_crop}, --factor {self.factor}",
                remedy=f"Try --train-crop {max(1, round(self.train_crop / self.factor)) * self.factor}.",
            )

        if self.freeze != "none" and not self.init:
            raise UsageError(
                "Only an encoder that was trained before can be frozen.",
                got=f"--freeze {self.freeze}, without --init",
                remedy="Add --init RUN, a run or a file to start from.",
            )

    @property
    def starts_from(self) -> str:
        return self.init

    @property
    def frozen(self) -> tuple[str, ...]:
        return () if self.freeze == "none" else (self.freeze,)

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that determine the shapes of its weights, by name."""
        return {name: vars(self)[name] for name in ARCHITECTURE if name in vars(self)} | {"channels": self.widths}

    @property
    def resolutions(self) -> int:
        """Number of resolutions, from the image to the grid of latents."""
        return self.factor.bit_length()

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every resolution, finest first."""
        return (*self.channels, *self.channels[-1:] * (self.resolutions - len(self.channels)))

    def training_sides(self, data: DataSpec) -> tuple[int, int] | None:
        """The sides of the random crops that it is trained on; None for whole images."""
        sides = None if self.train_crop is None else (self.train_crop, self.train_crop)
        return None if sides == data.shape[1:] else sides

    def chosen(self, data: DataSpec) -> list[str]:
        """What is done with sides that the factor does not divide, and the size of a latent."""
        height, width = data.shape[1:]
        rows, columns = -(-height // self.factor), -(-width // self.factor)
        whole = (rows * self.factor, columns * self.factor)
        found = [f"latents of {self.latent_channels} x {rows} x {columns}"]
        if whole == (height, width):
            return found
        padded = f"images of {height} x {width} are padded to {whole[0]} x {whole[1]}"
        return [*found, f"{padded} for the encoder, and cropped by the decoder"]


@register("kl-autoencoder")
@dataclass(frozen=True)
class KLAutoencoder(GridAutoencoder):
    r"""Autoencoder of latent diffusion: an image to a grid of Gaussian latents, with a weak KL.

    .. math:: \log p(x) \ge \mathbb{E}_{q(z \mid x)} \log p(x \mid z) - \mathrm{KL}(q(z \mid x) \,\|\,
        \mathcal{N}(0, I))

    Training weights the KL by ``kl_weight``; what is reported, and selects the weights, is the bound. Its networks have
    the names of the AutoencoderKL of diffusers: ``tightbound export RUN --to diffusers DIR``.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022).

    Raises:
        UsageError: If an option is out of range, or the data is not images.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> model = KLAutoencoder(factor=2, channels=(8, 16)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> model.posterior(torch.zeros(5, 1, 8, 8)).sample().shape
        torch.Size([5, 4, 4, 4])
    """

    first_options: ClassVar[tuple[str, ...]] = ("factor", "latent_channels")
    latent_space: ClassVar[LatentSpace] = "vector"

    kl_weight: float | Literal["published"] = "published"
    """Weight of the KL in training, nats against nats; published: 1e-6 against the summed error of images in [-1, 1],
    which is a beta of 1e-6 / (2 b) for laplace and 1e-6 / (8 b^2) for gaussian with scale b (`tightbound info RUN`
    prints it)."""
    latent_noise: float = 0.0
    """Least standard deviation of the posterior: noise that the decoder learns to tolerate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.kl_weight, str) and self.kl_weight != "published":
            raise UsageError("Unknown weight of the KL.", got=self.kl_weight, expected="a number, or published")
        for name in ("kl_weight", "latent_noise"):
            value = getattr(self, name)
            if not isinstance(value, str) and not 0 <= value < math.inf:
                raise UsageError(f"The option {name} is out of range.", got=value, remedy=f"Change {flag(name)}.")
        if self.kl_weight == "published" and self.likelihood == "discretized-logistic":
            raise UsageError(
                "The published weight of the KL is relative to an absolute or squared error.",
                got="--likelihood discretized-logistic",
                remedy="State the weight in nats: --kl-weight 0.001.",
            )

    def equivalents(self, model: Model) -> dict[str, float]:
        """The weight of the KL in nats."""
        if not isinstance(self.kl_weight, str):
            return {}
        decoder: Any = model.parts["decoder"]
        return {"equivalent_beta": WeakKL().weight * decoder.nats_per_error(WIDTH).item()}

    @property
    def training_objective(self) -> Objective:
        return self.two_players(WeakKL() if isinstance(self.kl_weight, str) else Elbo(beta=self.kl_weight))


@register("vq-autoencoder")
@dataclass(frozen=True)
class VQAutoencoder(GridAutoencoder):
    r"""Autoencoder of latent diffusion with quantised latents: at each position the nearest vector of a codebook.

    .. math:: \log p(x) \ge \log p(x \mid z = e_k) - \sum_i \ln K, \qquad
        k_i = \arg\min_k \lVert f_i(x) - e_k \rVert

    Its networks have the names of the VQModel of diffusers. The vectors of a code have ``latent_channels`` entries.

    References:
        Taming Transformers for High-Resolution Image Synthesis (Esser, Rombach and Ommer, 2021).
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022).

    Raises:
        UsageError: If an option is out of range, or the data is not images.

    Example:
        >>> from tightbound.data import DataSpec
        >>> recipe = VQAutoencoder(factor=2, channels=(8, 16), codes=16)
        >>> recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=17)).posterior.grids
        ((4, 4),)
    """

    first_options: ClassVar[tuple[str, ...]] = ("factor", "codes")
    latent_space: ClassVar[LatentSpace] = "codes"

    codes: int = 1024
    """Number of codes, K."""
    quantizer: Literal["ema", "gradient"] = "ema"
    """How the codebook is learned: ema (moving averages) or gradient."""
    decay: float = 0.99
    """Decay of the moving averages, with quantizer ema."""
    commitment: float = 0.25
    """Weight of the encoder's mean squared distance from its codes, against the mean error of images in [-1, 1], as
    published."""
    codebook: float = 1.0
    """Weight of the codes' mean squared distance from the encoder's output, with quantizer gradient."""
    revive: float = 0.03
    """Share of the mean usage below which a code is dead and is replaced; 0: never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(codes=self.codes)
        for name, most in {"commitment": math.inf, "codebook": math.inf, "decay": 1, "revive": 1}.items():
            if not 0 <= (value := getattr(self, name)) < most:
                raise UsageError(f"The option {name} is out of range.", got=value, remedy=f"Change {flag(name)}.")
        if self.likelihood == "discretized-logistic":
            raise UsageError(
                "The published weights of a codebook are relative to an absolute or squared error.",
                got="--likelihood discretized-logistic",
                remedy="Use --likelihood laplace or gaussian; or recipe vq-vae.",
            )

    @property
    def training_objective(self) -> Objective:
        return self.two_players(PublishedQuantized(codebook=self.codebook, commitment=self.commitment))
