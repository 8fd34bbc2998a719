"""What passes through the parts of a model in a step, and averages of it over complete batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from ...runtime.parts import LearnsByItself

__all__ = ["Averages", "Passed", "largest_activation", "passing"]

DECAY = 0.9
"""Of the running averages."""
SLOW_DECAY = 0.99
"""Of those of a discriminator's logits."""


@dataclass
class Passed:
    """What a likelihood was given and its decoder returned: the last of both.

    Args:
        z: The latent; None if it was not called.
        output: The output of the decoder, with its graph.
    """

    z: Tensor | None = None
    output: Tensor | None = None


@contextmanager
def passing(likelihood: nn.Module, decoder: nn.Module) -> Iterator[Passed]:
    """Keeps what passes through a likelihood and its decoder inside the block."""
    passed = Passed()

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        passed.z = inputs[0].detach()

    def leave(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        passed.output = output

    handles = [likelihood.register_forward_pre_hook(enter), decoder.register_forward_hook(leave)]
    try:
        yield passed
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def largest_activation(module: nn.Module, found: list[Tensor]) -> Iterator[None]:
    """Notes the largest absolute output of every layer of a module inside the block.

    Args:
        module: The module.
        found: The numbers are appended to it.
    """

    def see(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(output.detach().abs().amax().float())

    layers = [layer for layer in module.modules() if not [*layer.children()] and layer.state_dict()]
    handles = [layer.register_forward_hook(see) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Averages(nn.Module, LearnsByItself):
    r"""Running averages of what a step measures, the same for any number of processes and parts of a batch.

    The sums of all parts are added, over all processes, before anything is made of them; so a batch has one adaptive
    weight, from the gradients of all its examples,

    .. math:: \lambda_t = \min\Bigl(\tfrac{\lVert \sum_i W(g^{\text{rec}}_i) \rVert / n}
        {\lVert \sum_i W(g^{\text{adv}}_i) \rVert / n + \delta}, \lambda_{\max}\Bigr), \qquad
        \bar\lambda_{t + 1} = d \bar\lambda_t + (1 - d) \lambda_t

    A step uses the average of the steps before it, which all its parts know.

    Args:
        channels: Channels of the latent.
        delta: :math:`\delta`.
        largest: :math:`\lambda_{\max}`.
        decay: d.
    """

    weight: Tensor
    weighed: Tensor
    logits: Tensor
    judged: Tensor
    latent: Tensor
    seen: Tensor
    activation: Tensor

    def __init__(self, channels: int, delta: float, largest: float, decay: float = DECAY) -> None:
        super().__init__()
        self.delta, self.largest, self.decay = delta, largest, decay
        shapes = {"weight": (), "weighed": (), "logits": (2,), "judged": (), "latent": (2, channels), "seen": ()}
        for name, shape in {**shapes, "activation": ()}.items():
            self.register_buffer(name, torch.zeros(shape))
        self.more, self.empty = False, False
        self._parts = list[dict[str, Tensor]]()
        self._peaks = list[Tensor]()

    # -- parts of a batch ---------------------------------------------------------------------------------------------

    @contextmanager
    def part_of_batch(self, *, number: int, of: int, more: bool, empty: bool) -> Iterator[None]:
        self.more, self.empty = more, empty
        try:
            yield
        finally:
            self.more, self.empty = False, False

    def before_step(self, optimizer: Optimizer) -> None:
        """Nothing: it learns no parameter."""

    def forget(self) -> None:
        """Forgets the parts of a batch that is not complete."""
        self._parts, self._peaks = [], []

    @torch.no_grad()
    def take(self, sums: Mapping[str, Tensor], peaks: list[Tensor]) -> None:
        """Takes one part of a batch; after the last one the averages move.

        Args:
            sums: Sums over the examples of the part by name, with their number under "n".
            peaks: Largest activations of layers; empty if they were not watched.
        """
        keep = 0.0 if self.empty else 1.0
        self._parts.append({name: value.detach() * keep for name, value in sums.items()})
        self._peaks += peaks if keep else []
        if self.more:
            return
        whole = _summed(self._parts)
        n = whole.pop("n")
        self._move({name: value / n for name, value in whole.items()})
        self._note_peaks(watched=bool(peaks))
        self.forget()

    def _note_peaks(self, watched: bool) -> None:
        if watched:  # all processes watch the same steps
            peaks = torch.stack(self._peaks or [torch.zeros_like(self.activation)]).amax()
            self.activation.copy_(_agreed(peaks, distributed.ReduceOp.MAX))

    # -- averages -----------------------------------------------------------------------------------------------------

    def _move(self, means: Mapping[str, Tensor]) -> None:
        if "reconstruction" in means:
            found = means["reconstruction"].norm() / (means["adversarial"].norm() + self.delta)
            self._follow(self.weight, self.weighed, found.clamp(max=self.largest), self.decay)
        if "logits" in means:
            self._follow(self.logits, self.judged, means["logits"], SLOW_DECAY)
        if "latent" in means:
            self._follow(self.latent, self.seen, means["latent"], self.decay)

    def _follow(self, average: Tensor, known: Tensor, value: Tensor, decay: float) -> None:
        """Moves an average, from the first value on; one that is not finite is left out."""
        sound = value.isfinite().all()
        moved = torch.where(known > 0, torch.lerp(average, value.to(average.dtype), 1 - decay), value)
        average.copy_(torch.where(sound, moved, average))
        known.copy_(torch.where(sound, 1.0, known))

    @property
    def deviation(self) -> Tensor:
        """The standard deviation of every channel of the latent."""
        mean, square = self.latent
        return (square - mean.square()).clamp(min=0).sqrt()


def _summed(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The sums of all parts of all processes, in one exchange."""
    flat = torch.stack([torch.cat([value.reshape(-1) for value in part.values()]) for part in parts]).sum(0)
    sizes = [value.numel() for value in parts[0].values()]
    pieces = _agreed(flat, distributed.ReduceOp.SUM).split(sizes)
    shapes = {name: value.shape for name, value in parts[0].items()}
    return {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def _agreed(values: Tensor, how: distributed.ReduceOp.RedOpType) -> Tensor:
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(values, how)
    return values
