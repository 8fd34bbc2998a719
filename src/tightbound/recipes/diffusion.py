"""Diffusion models: one model, and the options by which the literature's differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..errors import UsageError
from ..options.data_spec import DataSpec
from ..options.direct import DiffusionBound, NoisyClassification, WeightName
from ..options.parts import ConditionOptions, require_sizes
from ..spec import register
from .base import Recipe

__all__ = ["DDPM", "EDM", "VDM", "DiffusionRecipe", "NoisyClassifierRecipe", "RectifiedFlow", "ScoreSDE"]

PathName = Literal["vp", "ve", "sub-vp", "linear"]
ScheduleName = Literal[
    "linear", "cosine", "linear-beta", "scaled-linear", "zero-terminal", "log-normal", "flow-time", "learned"
]
PredictionName = Literal["edm", "x0", "noise", "score", "v", "velocity"]
BackboneName = Literal["auto", "mlp", "unet", "dit"]
AVERAGED = 0.999
ENDLESS = ("cosine", "zero-terminal", "flow-time")
"""Schedules that may end in pure noise."""
OWN_ENDS = ("linear-beta", "scaled-linear", "zero-terminal")
"""Schedules whose ends follow from their rates."""


@dataclass(frozen=True)
class DiffusionRecipe(ConditionOptions, Recipe):
    r"""Abstract: data from noise, by steps that each remove a little of it.

    .. math:: x_\sigma = x + \sigma \epsilon, \qquad \gamma = 2 \ln \sigma, \qquad D(x_\sigma, \sigma) = \mathbb{E}[x
        \mid x_\sigma]
    """

    first_options: ClassVar[tuple[str, ...]] = ("network", "condition")

    network: BackboneName = "auto"
    """Network: mlp, unet (convolutions) or dit (a transformer over patches); auto: a unet for images, else an mlp."""
    channels: tuple[int, ...] | Literal["auto"] = "auto"
    """Channels of each level of a unet, the finest first; or the width of a dit, or of an mlp. Auto: 32 64 up to 16 x
    16 pixels, 64 128 above; 256 for a dit and an mlp."""
    blocks: int | Literal["auto"] = "auto"
    """Residual blocks of each level of a unet, of a dit, or of an mlp; auto: 2, 8 and 3."""
    patch: int | Literal["auto"] = "auto"
    """Side of the squares that are one position of a unet or a dit; auto: 1 up to 16 x 16 pixels, 2 up to 64 x 64, else
    4; a dit at least 2."""
    heads: int = 4
    """Attention heads, at the coarsest level of a unet (0: none)."""
    dropout: float = 0.1
    """Probability with which activations of a unet are dropped in training."""
    path: PathName = "vp"
    """What the network sees, and which Gaussian stands for the last noised data: variance preserving, variance
    exploding, sub-vp, or linear (rectified flow)."""
    schedule: ScheduleName = "linear"
    """Noise levels over time: linear (in gamma, minus the log signal-to-noise ratio), cosine, linear-beta (DDPM),
    scaled-linear (latent diffusion), zero-terminal (the same, ending in pure noise), log-normal (EDM), flow-time (even
    on the linear path), or learned for the least variance of the bound."""
    first_gamma: float | Literal["auto"] = "auto"
    """Gamma of the least noise; auto: a seventh of the spacing of two levels; -12 for continuous data."""
    last_gamma: float | Literal["auto", "pure-noise"] = "auto"
    """Gamma of the most noise, or pure-noise; auto: 10, enough for samplers of the ODE; 5 is enough for the bound."""
    timesteps: int | Literal["continuous"] = "continuous"
    """Steps of the chain, at least 2; or continuous, the limit of infinitely many."""
    predicts: PredictionName = "edm"
    """Output of the network: edm (a correction of the best linear guess, with unit variance), x0, noise, score, v or
    velocity."""
    weight: WeightName = "bound"
    """Weight of noise levels in training: bound; simple (the error of the noise); min-snr; sigmoid; edm; edm2 (with a
    learned variance for each level); velocity. The bound is still what is reported and selects."""
    adaptive_times: bool = False
    """Draw noise levels in training more often where the loss is large."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("channels", "blocks", "patch")
        require_sizes(**{name: value for name in names if (value := getattr(self, name)) != "auto"})
        self._require_timesteps()
        self._require_ends()
        if not 0 <= self.dropout < 1:
            raise UsageError("dropout must be a probability.", got=self.dropout, expected="0 <= dropout < 1")
        if self.adaptive_times and self.schedule == "learned":
            raise UsageError(
                "A learned schedule already draws noise levels where the loss is large.",
                got="--adaptive-times with --schedule learned",
                remedy="Leave one of them out: --schedule linear --adaptive-times.",
            )

    def _require_timesteps(self) -> None:
        if self.timesteps != "continuous" and not 2 <= self.timesteps <= 100_000:
            raise UsageError(
                "A chain needs at least two steps.",
                got=f"timesteps {self.timesteps}",
                expected="2 to 100,000, or continuous",
                remedy="Try --timesteps 1000, or continuous; one step of noise is recipe vae.",
            )

    def _require_ends(self) -> None:
        ends = (self.first_gamma, self.last_gamma)
        if self.schedule in OWN_ENDS and ends != ("auto", "auto"):
            raise UsageError(
                f"The ends of the schedule {self.schedule} follow from its rates.",
                got=f"first gamma {ends[0]}, last gamma {ends[1]}",
                remedy="Leave --first-gamma and --last-gamma out, or use --schedule linear.",
            )
        if self.last_gamma == "pure-noise" and self.schedule not in ENDLESS:
            raise UsageError(
                f"The schedule {self.schedule} cannot end in pure noise.",
                got="last gamma pure-noise",
                expected="a finite last gamma, about 10",
                remedy="Use --schedule cosine or flow-time.",
            )
        if self.last_gamma == "pure-noise" or self.schedule == "zero-terminal":
            self._require_pure_noise()

    def _require_pure_noise(self) -> None:
        """Refuses what has no meaning where no signal is left."""
        if self.timesteps != "continuous":
            raise UsageError(
                "A chain that ends in pure noise has no bound.",
                got=f"timesteps {self.timesteps}, and pure noise at the end",
                expected="continuous time, or a finite end",
                remedy="Use --timesteps continuous, or --last-gamma 10 with --schedule cosine.",
            )
        if self.predicts in ("noise", "score"):
            raise UsageError(
                f"From pure noise the {self.predicts} says nothing of the data.",
                got=f"predicts {self.predicts}, and pure noise at the end",
                expected="v, x0, velocity or edm; or a finite end",
                remedy="Use --predicts v.",
            )

    @property
    def ema(self) -> float:
        return AVERAGED

    @property
    def training_objective(self) -> DiffusionBound:
        return DiffusionBound(weight=self.weight)

    def chosen(self, data: DataSpec) -> list[str]:
        network = self.backbone(data)
        return [f"{network}, which predicts {self.predicts}", f"{self.schedule} schedule", f"weight {self.weight}"]

    def backbone(self, data: DataSpec) -> Literal["mlp", "unet", "dit"]:
        """The network for that data.

        Raises:
            UsageError: If it needs images, and the data are none.

        Example:
            >>> VDM().backbone(DataSpec("moons", shape=(2,), levels=None))
            'mlp'
        """
        image = len(data.shape) == 3
        if self.network in ("unet", "dit") and not image:
            raise UsageError(
                f"A {self.network} needs images.",
                got=f"examples of shape {data.shape}",
                expected="(channels, height, width)",
                remedy="Use --network mlp.",
            )
        return ("unet" if image else "mlp") if self.network == "auto" else self.network

    def ends(self, data: DataSpec) -> tuple[float, float]:
        """The first and the last gamma for that data, of schedules without rates.

        Example:
            >>> first, last = VDM().ends(DataSpec("digits", shape=(1, 8, 8), levels=17))
            >>> round(first, 2), last
            (-8.05, 10.0)
        """
        first = least_gamma(data) if self.first_gamma == "auto" else self.first_gamma
        last = {"auto": 10.0, "pure-noise": math.inf}
        return first, last[self.last_gamma] if isinstance(self.last_gamma, str) else self.last_gamma


def least_gamma(data: DataSpec) -> float:
    """Gamma of the least noise that matters to that data: a seventh of the spacing of its levels.

    Example:
        >>> round(least_gamma(DataSpec("mnist", shape=(1, 28, 28), levels=2)), 2)
        -2.51
    """
    values = None if data.levels is None else data.levels if data.dequantized else data.levels - 1
    return -12.0 if values is None else 2 * math.log(2 / values / 7)


@register("vdm")
@dataclass(frozen=True)
class VDM(DiffusionRecipe):
    r"""Variational diffusion model: the bound itself is maximised, with noise levels learned for its least variance.

    .. math:: -\log p(x) \le \mathrm{KL}(q(x_{\sigma_1} \mid x) \,\|\, p(x_{\sigma_1})) + \tfrac{1}{2} \int e^{-\gamma}
        \, \mathbb{E} \| x - D(x_\sigma, \sigma) \|^2 \, d\gamma + \mathbb{E}[-\log p(x \mid x_{\sigma_0})]

    References:
        Variational Diffusion Models (Kingma, Salimans, Poole and Ho, 2021).

    Raises:
        UsageError: If an option is out of range, or does not fit the data.

    Example:
        >>> model = VDM(channels=(8, 16)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> model().sample((3,)).shape
        torch.Size([3, 1, 8, 8])
    """

    schedule: ScheduleName = "learned"


@register("ddpm")
@dataclass(frozen=True)
class DDPM(DiffusionRecipe):
    r"""Denoising diffusion: a chain of 1,000 steps, trained by the error of its noise.

    .. math:: \mathbb{E}_{t, \epsilon} \| \epsilon - \hat\epsilon(z_t, t) \|^2, \qquad z_t = \alpha_t x + \sigma_t
        \epsilon

    References:
        Denoising Diffusion Probabilistic Models (Ho, Jain and Abbeel, 2020).

    Raises:
        UsageError: If an option is out of range, or does not fit the data.

    Example:
        >>> DDPM().build(DataSpec("digits", shape=(1, 8, 8), levels=17)).steps
        1000
    """

    schedule: ScheduleName = "linear-beta"
    timesteps: int | Literal["continuous"] = 1000
    predicts: PredictionName = "noise"
    weight: WeightName = "simple"


@register("score-sde")
@dataclass(frozen=True)
class ScoreSDE(DiffusionRecipe):
    r"""Score-based model: noise is added by a stochastic differential equation, and removed by its reverse.

    .. math:: dx = \sqrt{\tfrac{d \sigma^2}{dt}} \, dw, \qquad \nabla_x \log p_\sigma(x) = \frac{D(x, \sigma) - x}
        {\sigma^2}

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021).

    Raises:
        UsageError: If an option is out of range, or does not fit the data.

    Example:
        >>> ScoreSDE(channels=(8,)).build(DataSpec("moons", shape=(2,), levels=None))().sample((3,)).shape
        torch.Size([3, 2])
    """

    path: PathName = "ve"
    predicts: PredictionName = "noise"
    weight: WeightName = "simple"


@register("edm")
@dataclass(frozen=True)
class EDM(DiffusionRecipe):
    r"""EDM: log-normal noise levels, and a preconditioned network whose input and output have unit variance.

    .. math:: \mathbb{E}_{\ln \sigma \sim \mathcal{N}(-1.2, 1.2^2)} \frac{\sigma^2 + s^2}{\sigma^2 s^2} \, \| x - D(x +
        \sigma \epsilon, \sigma) \|^2

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila and Laine, 2022).
        Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), for the weight edm2.

    Raises:
        UsageError: If an option is out of range, or does not fit the data.

    Example:
        >>> EDM(weight="edm2", channels=(8,)).build(DataSpec("moons", shape=(2,), levels=None)).uncertainty is None
        False
    """

    path: PathName = "ve"
    schedule: ScheduleName = "log-normal"
    weight: WeightName = "edm"


@register("rectified-flow")
@dataclass(frozen=True)
class RectifiedFlow(DiffusionRecipe):
    r"""Rectified flow: the velocity of straight paths from data to noise.

    .. math:: \mathbb{E}_{t, \epsilon} \| (\epsilon - x) - \hat{u}(z_t, t) \|^2, \qquad z_t = (1 - t) x + t \epsilon

    References:
        Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow (Liu, Gong and Liu, 2023).
        Flow Matching for Generative Modeling (Lipman, Chen, Ben-Hamu, Nickel and Le, 2023).

    Raises:
        UsageError: If an option is out of range, or does not fit the data.

    Example:
        >>> RectifiedFlow(channels=(8,)).build(DataSpec("moons", shape=(2,), levels=None))().sample((3,)).shape
        torch.Size([3, 2])
    """

    path: PathName = "linear"
    schedule: ScheduleName = "flow-time"
    predicts: PredictionName = "velocity"
    weight: WeightName = "velocity"


@register("noisy-classifier")
@dataclass(frozen=True)
class NoisyClassifierRecipe(Recipe):
    r"""Classifier of noised data, which guides a diffusion model: sample RUN --guide-with this.

    .. math:: \mathbb{E}_{\sigma, \epsilon} \log p(c \mid x + \sigma \epsilon, \sigma)

    References:
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021).

    Raises:
        UsageError: If an option is out of range, or the data have no classes.

    Example:
        >>> data = DataSpec("digits", shape=(1, 8, 8), levels=17, classes=("even", "odd"))
        >>> NoisyClassifierRecipe(channels=(8,)).build(data).can_sample
        False
    """

    first_options: ClassVar[tuple[str, ...]] = ("channels", "dropout")

    channels: tuple[int, ...] = (32, 64, 64)
    """Channels of each level, the finest first; for vectors the first is the width of the layers."""
    dropout: float = 0.1
    """Probability with which a channel's activation is dropped in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(channels=self.channels or (0,))
        if not 0 <= self.dropout < 1:
            raise UsageError("dropout must be a probability.", got=self.dropout, expected="0 <= dropout < 1")

    @property
    def ema(self) -> float:
        return AVERAGED

    @property
    def training_objective(self) -> NoisyClassification:
        return NoisyClassification()
