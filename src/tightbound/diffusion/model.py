r"""Models by diffusion: data, or a prior of latents, from a denoiser.

Convention: x has shape ``(*batch, *event)`` in the units of the data; the denoiser sees :math:`(x - a) / b`, and the
bound is in nats of the data.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.types import _size

from ..conditions import Given
from ..distributions import Bounded, Sampling, Steered, require_event_shape
from ..errors import UsageError
from ..likelihoods import Measure, density_of, mass_of
from ..models import Model
from ..models.terms import Estimated, Terms
from ..options.data_spec import DataSpec
from ..runtime.progress import progress
from .bound import Bound, Decoder, GaussianDecoder, LevelDecoder
from .denoiser import Denoise, Denoiser, Moments
from .guides import ClassifierFree, Guide
from .ode import solve
from .paths import PATHS, Path
from .sampler import ExampleNoise, Sampler
from .schedules import Linear, Schedule, grid
from .times import Times, stratified_draws

__all__ = ["Diffused", "Diffusion"]

MOST_SEED = 2**62
NOISE = 20.0
"""A gamma of pure noise, to the precision of a bound: its prior costs less than 1e-8 nats for each entry."""
SAMPLER, STEPS = "2m", 30
"""How samples are drawn by default."""
ADAPTIVE = "adaptive"
DRAWS = 4
"""Draws for each example outside training."""


class Diffusion(Model):
    r"""A model :math:`p(x \mid c)` by diffusion: the limit of a hierarchy whose encoders only add noise.

    Calling it returns :class:`Diffused`, which can be sampled and bounded. It has no latent of its own: noised data
    are as large as the data.

    References:
        Variational Diffusion Models (Kingma, Salimans, Poole and Ho, 2021).

    Args:
        denoiser: ``x, sigma, c -> E[x0 | x]``, in its own units.
        schedule: From time to noise.
        shape: Of an example.
        path: Says which Gaussian stands for the last noised data.
        levels: Number of values of an entry, evenly from 0 to 1; None for continuous data.
        shift: a of the units of the denoiser, :math:`(x - a) / b`.
        scale: b.
        moments: Mean and deviation of continuous data, in the units of the denoiser.
        steps: Steps of the chain; None for the limit of infinitely many.
        times: How training draws its times.
        uncertainty: A network from :math:`\gamma`, ``(n)``, to log variances of the error, ``(n)``, for the weight
            "edm2"; or None.

    Raises:
        UsageError: If there are fewer than two levels, or the units are not positive.

    Example:
        >>> from tightbound.diffusion import GaussianOracle, Linear
        >>> oracle = GaussianOracle(torch.zeros(2), torch.ones(2))
        >>> model = Diffusion(oracle, Linear(-10.0, 10.0), (2,))
        >>> model().sample((5,)).shape, model().lower_bound(torch.zeros(5, 2)).shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        shape: Sequence[int],
        *,
        path: Path = PATHS["vp"],
        levels: int | None = None,
        shift: float = 0.0,
        scale: float = 1.0,
        moments: Moments | None = None,
        steps: int | None = None,
        times: Times | None = None,
        uncertainty: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if (levels is not None and levels < 2) or not 0 < scale < math.inf:
            raise UsageError(
                "A diffusion model needs at least two levels, and units of a positive size.",
                got=f"levels {levels}, scale {scale:g}",
                expected="levels >= 2 or None, scale > 0",
            )
        self.denoiser, self.schedule, self.path, self.shape = denoiser, schedule, path, tuple(shape)
        self.levels, self.shift, self.scale, self.steps = levels, shift, scale, steps
        self.moments = Moments(shift=shift, scale=scale) if moments is None else moments
        self.times, self.uncertainty = Times() if times is None else times, uncertainty
        self.decoder = self._decoder()

    def _decoder(self) -> Decoder:
        if self.levels is None:
            return GaussianDecoder(self.moments)
        values = (torch.linspace(0, 1, self.levels) - self.shift) / self.scale
        return LevelDecoder(values, largest=math.exp(self.schedule.start / 2))

    def forward(self, c: Given | None = None) -> Diffused:
        """The distribution of x given c.

        Raises:
            UsageError: If these are not its conditions.
        """
        self.require_weights()
        self.require_conditions(c)
        return Diffused(self, c)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The denoiser, and what learns of the schedule."""
        return {"denoiser": self.denoiser, "schedule": self.schedule}

    @property
    def bound(self) -> Bound:
        """The bound to report, in the units of the denoiser: its times are even where its variance is then small."""
        if self.steps is not None or self.schedule.suits_bound:
            return self.trained_bound
        even = Linear(self.schedule.start, min(self.schedule.end, NOISE))
        return Bound(self.denoiser, even, self.path, self.decoder)

    @property
    def trained_bound(self) -> Bound:
        """The same bound with the times of training."""
        return Bound(self.denoiser, self.schedule, self.path, self.decoder, self.steps)

    def sampler(self, name: str, steps: int) -> Sampler:
        """The sampler of that name, from noise to the first level.

        Args:
            name: A name in :data:`~tightbound.diffusion.STEPS`.
            steps: Number of steps.
        """
        ratios = grid(self.schedule, steps, "log-snr" if math.isfinite(self.schedule.end) else "time")
        end = self.path.end(torch.tensor(self.schedule.end, dtype=torch.float64)).item()
        return Sampler(name, ratios, end)

    def solved(self, denoise: Denoise, noise: Tensor, how: Sampling) -> Tensor:
        """Where the ODE leads noise, in steps of its own choice.

        Args:
            denoise: The denoiser, with its condition.
            noise: Standard noise, ``(n, *event)``.
            how: Must not ask for a number of steps.

        Raises:
            UsageError: If it does, or the network is less precise than the solver's tolerance.
        """
        if how.steps is not None:
            raise UsageError(
                "The adaptive sampler chooses its own steps.",
                got=f"steps {how.steps}",
                remedy="Leave --steps out, or use --sampler 2m.",
            )
        last = min(self.schedule.end, NOISE)
        start = noise * self.path.end(torch.tensor(last, dtype=torch.float64)).item()
        return solve(denoise, start, (math.exp(last / 2), math.exp(self.schedule.start / 2)))

    def units(self, x: Tensor) -> Tensor:
        """Data in the units of the denoiser."""
        return (x - self.shift) / self.scale

    @property
    def log_volume(self) -> float:
        """Nats by which a density in the denoiser's units is larger than in those of the data."""
        return math.prod(self.shape) * math.log(self.scale) if self.levels is None else 0.0

    def measure(self, data: DataSpec) -> Measure:
        """What the bound means for that data."""
        return density_of(data) if self.levels is None else mass_of(self.levels, data)


class Diffused(Bounded, Steered):
    r"""The distribution :math:`p(x \mid c)` of a diffusion model: it can be sampled and bounded.

    Args:
        model: The model.
        c: Conditions of shape ``(*batch)``, or None.
        guide: How its samples are guided; by the missing condition if left out.

    Example:
        >>> from tightbound.diffusion import GaussianOracle, Linear
        >>> px = Diffusion(GaussianOracle(torch.zeros(2), torch.ones(2)), Linear(-10.0, 10.0), (2,))()
        >>> px.terms(torch.zeros(5, 2)).estimated
        ('prior', 'diffusion')
    """

    def __init__(self, model: Diffusion, c: Given | None = None, guide: Guide | None = None) -> None:
        self.model, self.c, self.guide = model, c, ClassifierFree() if guide is None else guide
        super().__init__(torch.Size() if c is None else c.shape, torch.Size(model.shape), validate_args=False)

    def terms(self, x: Tensor, k: int = 1, *, intervals: int = 1) -> Terms:
        r"""The three terms of x, with k draws of noise and of times that are stratified within and over examples.

        The diffusion term is a sum over intervals of noise levels, even in :math:`\gamma`
        (:meth:`~tightbound.diffusion.bound.Bound.edges`): its entry has the shape ``(*batch, intervals)``.

        Args:
            x: Data, ``(*batch, *event)``.
            k: Number of draws for each example.
            intervals: Number of intervals.

        Raises:
            ShapeError: If x does not fit the model.
            UsageError: If k, or the number of intervals, is less than 1.
        """
        if k < 1 or intervals < 1:
            raise UsageError(
                "The bound needs at least one draw for each example, and one interval of noise levels.",
                got=f"k {k}, intervals {intervals}",
                expected="k >= 1, intervals >= 1",
            )
        model, batch = self.model, x.shape[: x.dim() - len(self.model.shape)]
        require_event_shape(self, x.shape[len(batch) :], "model")
        u = model.units(x).reshape(-1, *model.shape)
        many, n = u.repeat(k, *(1,) * len(model.shape)), len(u)
        c = None if self.c is None else self.c.expand(k, *batch).flatten()
        t = stratified_draws(k, n, device=x.device, dtype=u.dtype).flatten()
        cost = model.bound.diffusion(many, t, torch.randn_like(many), c).unsqueeze(-1)
        diffusion = (cost * one_hot(model.bound.interval(t, intervals), intervals)).reshape(k, *batch, -1).mean(0)
        reconstruction = model.bound.reconstruction(many, torch.randn_like(many)).reshape(k, *batch)
        prior = model.bound.prior(u)
        entries = (Estimated("prior", prior.reshape(*batch, 1)), Estimated("diffusion", diffusion))
        return Terms(reconstruction - model.log_volume, entries)

    def lower_bound(self, x: Tensor) -> Tensor:
        """An unbiased estimate of the bound on log p(x), ``(*batch)`` nats; outside training from several draws."""
        terms = self.terms(x, 1 if self.model.training else DRAWS)
        return terms.log_likelihood.mean(0) - terms.kl()

    @torch.no_grad()
    def sample(self, sample_shape: _size = (), how: Sampling = Sampling(), seed: int | None = None) -> Tensor:  # noqa: B008
        """Samples, ``(*sample_shape, *batch, *event)``; each depends on its own noise alone.

        Args:
            sample_shape: Number of samples for each condition.
            how: Sampler, number of steps and guidance.
            seed: Seed of the noise; drawn from torch's generator if left out.

        Raises:
            UsageError: If it has no such options.
            SamplingError: If the network returns numbers that are not finite.
        """
        return deque(self.walk(sample_shape, how, seed), maxlen=1).pop()

    @torch.no_grad()
    def walk(self, sample_shape: _size = (), how: Sampling = Sampling(), seed: int | None = None) -> Iterator[Tensor]:  # noqa: B008
        """What is expected of the data on the way of a sampler, and at last the samples, shaped as by :meth:`sample`.

        Args:
            sample_shape: Number of samples for each condition.
            how: Sampler, number of steps and guidance.
            seed: Seed of the noise; drawn from torch's generator if left out.

        Raises:
            UsageError: If it has no such options.
            SamplingError: If the network returns numbers that are not finite.
        """
        how.require_diffusion()
        model, shape = self.model, (*sample_shape, *self.batch_shape)
        seed = int(torch.randint(MOST_SEED, ())) if seed is None else seed
        noise = ExampleNoise(seed, range(math.prod(shape)), model.shape, model.device, model.dtype)
        c = None if self.c is None else self.c.expand(*shape).flatten()
        if c is not None and model.condition and how.guidance != 1 and self.guide.without_condition:
            model.condition.require_learned(c.missing())
        denoise = self.guide.guiding(model.denoiser, c, how)
        whole = lambda u: (u * model.scale + model.shift).reshape(*shape, *model.shape)
        x = torch.empty(0)
        if how.sampler == ADAPTIVE:
            x = model.solved(denoise, noise(), how)
        else:
            sampler = model.sampler(how.sampler or SAMPLER, how.steps or STEPS)
            with progress("steps of the sampler", len(sampler.grid) - 1) as advance:
                for point in sampler.walk(denoise, noise):
                    x = point.x.to(model.dtype)
                    advance()
                    if point.x0 is not None:
                        yield whole(point.x0.to(model.dtype))
        yield whole(model.decoder.draw(model.bound.decoded(x), noise()))
