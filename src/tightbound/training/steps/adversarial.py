r"""The training step of two players: a model, and a discriminator of its reconstructions.

One optimiser and one backward pass serve both. The losses of the image are differentiated at the image, whose graph is
cut there: g = ∇ of perceptual distance and judgement. Then one pass carries everything back,

.. math:: -\mathcal{L}_{\text{base}}(\theta) + \langle h(\theta), g \rangle + \mathcal{L}_D(\phi),

h the decoder's output. Its gradient in θ is that of all losses of the generator, and neither player's gradient can
depend on the other's loss. It equals the published scheme of three passes.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...conditions import Given
from ...data import Data
from ...errors import UsageError
from ...likelihoods import declared
from ...models import LatentVariableModel, Model
from ...networks.discriminator import PatchDiscriminator
from ...networks.output import closing_layer
from ...networks.perceptual import PerceptualNetwork
from ...networks.signed import Signed
from ...objectives.adversarial import GAMES, lecam, r1
from ...objectives.rows import rows
from ...options.adversarial import Adversarial
from ...options.training import TrainingOptions
from ...runtime.modes import at_least_float32
from ..clock import Clock
from ..crops import Crops, crops_of
from ..features import prepare
from .base import Group, Step
from .cut import Cut, latent_moments
from .watching import DECAY, Averages, largest_activation, passing

__all__ = ["AdversarialStep"]


class AdversarialStep(Step):
    """From a batch to the rows of any objective, with a perceptual and an adversarial term.

    Args:
        model: The model; its likelihood has a last layer.
        objective: What is maximised.
        perceptual: The perceptual network; None without.
        discriminator: The other player; None without.
        examples: Size of the training split.
        decay: Of the running average of the adaptive weight.

    Raises:
        UsageError: If the last layer of the model's likelihood is not known, or the images do not fit the networks.
        ObjectiveError: If the likelihood's logarithm is not an error.
    """

    keeps_last = True
    ramp: Tensor

    def __init__(
        self,
        model: LatentVariableModel,
        objective: Adversarial,
        perceptual: PerceptualNetwork | None = None,
        discriminator: PatchDiscriminator | None = None,
        examples: int = 1,
        decay: float = DECAY,
    ) -> None:
        super().__init__(model)
        likelihood = declared(model.likelihood)
        self.rows = (*objective.base.rows, *objective.more_rows)
        self.objective, self.examples, self.likelihood = objective, examples, likelihood
        self.layer = _require_layer(closing_layer(likelihood.decoder))
        self.perceptual, self.discriminator = perceptual, discriminator
        self.signed = Signed(model.data_spec)
        self.averages = Averages(_channels(likelihood.input_shape), objective.delta, objective.largest, decay)
        self.register_buffer("ramp", torch.zeros(()))
        self.playing = self.watching = self.uncompiled = self.is_compiled = False
        self.unsaved = ("perceptual",) if perceptual is not None and perceptual.taps.from_file else ()
        self.crops: Crops | None = None
        sides = crops_of(model)
        for network in (perceptual, discriminator):
            if network is not None:
                network.require_fits((likelihood.shape[0], *(likelihood.shape[1:] if sides is None else sides.sides)))
        self._rows = rows.dispatch(type(objective.base))
        self._nats()  # refuses a likelihood without an error

    # -- around the steps ---------------------------------------------------------------------------------------------

    def begin(self, data: Data, options: TrainingOptions) -> None:
        if self.perceptual is not None:
            prepare(self.perceptual, data, options.seed)

    def describe(self) -> list[str]:
        o, told = self.objective, list[str]()
        if self.perceptual is not None:
            told.append(f"perceptual distance: {self.perceptual.taps.weights}")
        if self.discriminator is not None:
            count = sum(p.numel() for p in self.discriminator.parameters())
            told.append(f"discriminator of {count:,} parameters, judging from {o.start:.0%} of the run on")
        return [*told, "the last weights are kept: with these terms the bound does not tell better from worse"]

    def before_step(self, clock: Clock) -> None:
        self.crops = self.crops or crops_of(self.model)  # on the device to which the model has come
        if self.uncompiled:
            self._compile()
        if self.model.recipe is not None:
            self.model.recipe.anneal(self.model, clock.step, clock.steps)
        start = round(self.objective.start * clock.steps)
        ramp = max(1, round(self.objective.ramp * clock.steps))
        self.playing = self.discriminator is not None and clock.step >= start
        self.watching = not self.is_compiled and clock.step % clock.options.log_every == 0
        self.ramp.fill_(min(1.0, (clock.step - start + 1) / ramp) if self.playing else 0.0)

    def groups(self, options: TrainingOptions) -> list[Group]:
        own = [p for p in self.model.parameters() if p.requires_grad]
        groups = [Group(own, clip_norm=self.clip_norm(options))]
        if self.discriminator is not None:
            theirs, o = [*self.discriminator.parameters()], self.objective
            groups.append(Group(theirs, share=o.share, clip_norm=o.clip_norm))
        return groups

    def compiled(self) -> nn.Module:
        """Encoder, decoder and perceptual network are compiled at the first step; the step is not, which takes
        gradients, nor what is differentiated twice: the decoder's last layer, and the discriminator.
        """
        self.layer.forward = torch.compiler.disable(self.layer.forward)
        self.uncompiled = self.is_compiled = True
        return self

    def _compile(self) -> None:
        parts = (self.model if self.crops is None else self.crops.model).parts
        taps = None if self.perceptual is None else self.perceptual.taps
        for network in (parts["encoder"], declared(parts["decoder"]).decoder, taps):
            if network is not None:
                network.compile()
        self.uncompiled = False

    def readings(self) -> dict[str, float | list[float]]:
        found = dict[str, float | list[float]]()
        if not self.is_compiled:  # layers that are compiled together cannot be watched
            found["largest_activation"] = self.averages.activation.item()
        if self.discriminator is not None:
            found["ramp"] = self.ramp.item()
        if self.discriminator is not None and self.objective.adaptive == "published":
            found["adaptive_weight"] = self.averages.weight.item()
        if self.averages.seen:
            means, deviations = self.averages.latent[0].tolist(), self.averages.deviation.tolist()
            found |= {"latent_means": means, "latent_deviations": deviations}
        return found

    # -- a step -------------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, beta: Tensor, c: Given | None = None) -> Tensor:
        learning, peaks = torch.is_grad_enabled(), list[Tensor]()
        watched = largest_activation(self.model, peaks) if learning and self.watching else nullcontext()
        model, x, share = self._seen(x)
        likelihood = declared(model.parts["decoder"])
        with watched, passing(likelihood, likelihood.decoder or self.layer) as passed:
            base = share * self._rows(self.objective.base, model(c), x, beta, self.examples)
        cut = Cut(_known(passed.output), lambda output: self.signed(likelihood.given(output).mean), learning)
        perceived, judged = self._perceive(self.signed(x), cut), self._judge(self.signed(x), cut)
        value = base[0] - perceived.loss - self._weight() * judged.loss - judged.discriminator
        if learning:
            pull = self._pull(base[0], cut, perceived, judged, passed.z, peaks)
            value = value.detach() + _slope_only(base[0] - pull - judged.discriminator)
        found = [*([perceived.loss] if self.perceptual is not None else []), *judged.rows]
        return torch.stack([value, *base[1:], *(row.detach().to(value.dtype) for row in found)])

    def _seen(self, x: Tensor) -> tuple[Model, Tensor, float]:
        """What is trained on: the model for whole examples or for crops, these, and what a sum over one stands for."""
        if self.crops is None or not self.model.training:
            return self.model, x, 1.0
        return self.crops.model, self.crops.of(x), self.crops.share

    @torch.no_grad()
    def _nats(self) -> Tensor:
        """The nats of a unit of error in an image from -1 to 1, at the likelihood's scale."""
        return self.likelihood.nats_per_error(self.signed.width).mean()

    def _weight(self) -> Tensor:
        """The nats of a unit of the generator's loss."""
        o, entries = self.objective, math.prod(self.likelihood.shape)
        return self.ramp * o.weight * self._nats() * (entries if o.adaptive == "none" else self.averages.weight)

    def _perceive(self, data: Tensor, cut: Cut) -> _Perceived:
        """The perceptual distance, in nats, and its gradient at the image."""
        if self.perceptual is None:
            return _Perceived(cut.shown.new_zeros(len(data)))
        with torch.no_grad():
            features = self.perceptual.features(data)
        nats = self.objective.perceptual_weight * math.prod(self.likelihood.shape) * self._nats()
        distance = nats * self.perceptual.between(features, self.perceptual.features(cut.shown))
        slope = torch.autograd.grad(distance.sum(), cut.shown)[0] if distance.requires_grad else None
        return _Perceived(distance.detach(), slope)

    def _judge(self, data: Tensor, cut: Cut) -> _Judged:
        """What the discriminator loses, and, where it plays, the generator, with the gradient at the image."""
        nothing = cut.shown.new_zeros(len(data))
        if self.discriminator is None:
            return _Judged(nothing, nothing)
        game, sharp = GAMES[self.objective.game], self.objective.r1 > 0 and torch.is_grad_enabled()
        data = data.detach().requires_grad_(sharp)
        real, fake = at_least_float32(self.discriminator(torch.cat([data, cut.shown]))).chunk(2)
        lost, slope = game.generator(fake) if self.playing else nothing, None
        if lost.requires_grad:
            slope = torch.autograd.grad(lost.sum(), cut.shown, retain_graph=True)[0]
        loss = game.discriminator(real, fake) + self._regularised(real, fake, data if sharp else None)
        return _Judged(lost.detach(), loss, slope, real.detach().flatten(1), fake.detach().flatten(1))

    def _regularised(self, real: Tensor, fake: Tensor, data: Tensor | None) -> Tensor | float:
        o, averages = self.objective, self.averages
        kept = o.lecam * averages.judged * lecam(real, fake, *averages.logits) if o.lecam else 0.0
        if data is None:
            return kept
        return kept + o.r1 * r1(torch.autograd.grad(real.flatten(1).mean(1).sum(), data, create_graph=True)[0])

    def _pull(
        self, base: Tensor, cut: Cut, perceived: _Perceived, judged: _Judged, z: Tensor | None, peaks: list[Tensor]
    ) -> Tensor:
        """What carries both gradients at the image back; and the averages take this part of the batch."""
        sums = {"n": base.new_tensor(float(len(base))), **judged.sums}
        if z is not None:
            sums["latent"] = latent_moments(z, self.likelihood.input_shape)
        slope = torch.zeros_like(cut.output) if perceived.slope is None else cut.back(perceived.slope)
        if judged.slope is not None:
            away = cut.back(judged.slope)
            if self.objective.adaptive == "published":
                others = slope + cut.slope_of(-base.sum())
                sums["reconstruction"] = cut.at_weight(self.layer, others) / self._nats()  # in units of error
                sums["adversarial"] = cut.at_weight(self.layer, away)
            slope = slope + self._weight() * away
        self.averages.take(sums, peaks)
        return cut.pulled(slope.detach())


@dataclass(frozen=True, eq=False)
class _Perceived:
    """The perceptual distance of each example, nats, and its gradient at the image."""

    loss: Tensor
    slope: Tensor | None = None


@dataclass(frozen=True, eq=False)
class _Judged:
    """The losses of generator and discriminator, ``(n,)``, the gradient of the first at the image, and the logits."""

    loss: Tensor
    discriminator: Tensor
    slope: Tensor | None = None
    real: Tensor | None = None
    fake: Tensor | None = None

    @property
    def rows(self) -> list[Tensor]:
        """The generator's loss, the discriminator's, the gap of the logits, and the share of patches told apart."""
        if self.real is None or self.fake is None:
            return []
        told = ((self.real > 0).float().mean(1) + (self.fake <= 0).float().mean(1)) / 2
        return [self.loss, self.discriminator, self.real.mean(1) - self.fake.mean(1), told]

    @property
    def sums(self) -> dict[str, Tensor]:
        """Sums of the mean logits of both kinds over the examples."""
        if self.real is None or self.fake is None:
            return {}
        return {"logits": torch.stack([self.real.mean(1).sum(), self.fake.mean(1).sum()])}


def _slope_only(x: Tensor) -> Tensor:
    """Zero, with the gradient of x."""
    return x - x.detach()


def _known(output: Tensor | None) -> Tensor:
    if output is None:
        raise UsageError("The decoder was not called.", got="no output of its last layer", expected="an image")
    return output


def _require_layer(layer: nn.Module | None) -> nn.Module:
    if layer is None:
        raise UsageError(
            "A perceptual or adversarial term needs a decoder whose last layer is known.",
            got="a likelihood that does not declare it",
            remedy="Use a likelihood of independent entries, such as gaussian, and a decoder of this package.",
        )
    return layer


def _channels(shape: tuple[int, ...]) -> int:
    """Channels of a latent ``(channels, h, w)``, ``(positions, channels)`` or ``(channels,)``."""
    return shape[0] if len(shape) == 3 else shape[-1]
