"""The variational autoencoder with discrete latents, trained through a relaxation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..annealing import temperature
from ..errors import UsageError
from ..options.objectives import Elbo
from ..options.parts import EntryLikelihood, Networks, require_sizes
from ..options.priors import LatentSpace
from ..options.remedies import Remedy
from .base import Recipe
from .versions import register_version_2

if TYPE_CHECKING:
    from ..models import Model

__all__ = ["GumbelVAE", "Relaxation", "TemperatureSchedule"]

TemperatureSchedule = Literal["cosine", "exponential", "constant"]


@dataclass(frozen=True)
class Relaxation(EntryLikelihood, Recipe):
    """Abstract: shared by recipes with relaxed latents: the objective and the temperature schedule."""

    latent_space: ClassVar[LatentSpace] = "codes"
    remedies: ClassVar[tuple[Remedy, ...]] = (
        Remedy(
            "richer prior",
            "learn the prior probability of each code",
            lambda o: {"prior": "learned"} if o["prior"] == "uniform" else None,
        ),
    )

    straight_through: bool = False
    """Use discrete samples in training too, with the gradients of the relaxed ones."""
    prior: Literal["uniform", "learned"] = "uniform"
    """p(z): uniform, or a learned probability for each code at each position."""
    temperature: float = 1.0
    """Temperature of the relaxation at the start."""
    temperature_floor: float = 0.5
    """Temperature at the end; lower is closer to discrete latents, with noisier gradients."""
    temperature_schedule: TemperatureSchedule = "cosine"
    """Temperature schedule: half a cosine; exponential down to the floor; or constant."""
    temperature_steps: int | None = None
    """Steps of the cosine; default: all steps of the run."""
    temperature_rate: float = 3e-5
    """Rate of the exponential per step."""
    temperature_hold: int = 1
    """Steps between two changes of the temperature."""
    samples: int = 1
    """Posterior samples per training step."""
    beta: float = 1.0
    """Weight of the KL (summed over positions) against the log-likelihood (summed over entries) in training; reports
    always use 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature_floor <= self.temperature < math.inf:
            raise UsageError(
                "The temperature must be positive and not below its floor.",
                got=f"from {self.temperature} to {self.temperature_floor}",
                remedy="Try --temperature 1 --temperature-floor 0.5.",
            )
        least = {"samples": 1, "temperature_hold": 1, "temperature_steps": 1, "temperature_rate": 0, "beta": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and not smallest <= value < math.inf:
                raise UsageError(f"The option {name} is out of range.", got=value, expected=f"at least {smallest}")

    def anneal(self, model: Model, step: int, steps: int) -> None:
        model.parts["encoder"].get_buffer("temperature").fill_(self.temperature_at(step, steps))

    def temperature_at(self, step: int, steps: int) -> float:
        """The temperature of a step of a run.

        Args:
            step: The next step, counted from 0.
            steps: Steps of the run.
        """
        return temperature(
            step,
            self.temperature_schedule,
            self.temperature,
            self.temperature_floor,
            rate=self.temperature_rate,
            steps=steps if self.temperature_steps is None else self.temperature_steps,
            hold=self.temperature_hold,
        )

    @property
    def training_objective(self) -> Elbo:
        """A true bound in evaluation mode only; on the relaxed terms of a training step it is just a metric."""
        return Elbo(self.samples, self.beta)


@register_version_2("gumbel-vae")
@dataclass(frozen=True)
class GumbelVAE(Networks, Relaxation):
    r"""Variational autoencoder with categorical or binary latents, relaxed in training.

    .. math:: \log p(x) \ge \mathbb{E}_{q(z \mid x)} \log p(x \mid z) -
        \sum_i \mathrm{KL}(q(z_i \mid x) \,\|\, p(z_i))

    Training replaces z by Gumbel-softmax (or binary Concrete) samples and keeps the closed form of the discrete KL, so
    its objective is not a bound; validation and evaluation use discrete samples and report a true bound. In
    ``metrics.jsonl`` the ``bound`` of split ``train`` is the relaxed one, that of split ``valid`` the true one.

    References:
        Categorical Reparameterization with Gumbel-Softmax (Jang, Gu and Poole, 2017).
        The Concrete Distribution: A Continuous Relaxation of Discrete Random Variables (Maddison, Mnih and Teh, 2017).

    Raises:
        UsageError: If an option is out of range, or the options cannot model the data.

    Example:
        >>> from tightbound.data import DataSpec
        >>> recipe = GumbelVAE(positions=4, classes=3, hidden=(16,))
        >>> model = recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> model().sample_latent((5,)).shape
        torch.Size([5, 4, 3])
        >>> recipe.temperature_at(50, steps=100)
        0.75
    """

    first_options: ClassVar[tuple[str, ...]] = ("positions", "classes")

    latents: Literal["categorical", "binary"] = "categorical"
    """Kind of latent at each position: categorical or bernoulli (a bit)."""
    positions: int = 20
    """Number of positions of the latent."""
    classes: int = 10
    """Number of classes at each position; a bit has two."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(positions=self.positions, hidden=self.hidden, channels=self.channels)
        if self.classes < 2:
            raise UsageError("The option classes must be at least 2.", got=self.classes, remedy="Try --classes 10.")
