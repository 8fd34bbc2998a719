"""How a model is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import UnknownName, UsageError
from ..spec import check_choices, flag, register, upgrade

__all__ = ["TrainingOptions"]

EVALUATIONS = 20
"""Evaluations of a run that is not told how often."""
FEWEST_STEPS, ENTRIES = 50, 2**23
"""Between two evaluations lie as many steps, or steps over as many entries of examples: what files and a picture cost
must stay little beside what is learned meanwhile, be it many quick steps or a few slow ones."""
PASSES = 5
"""So many times the validation split's examples are learned from between two passes over it."""
OFTEN, FEWEST_STALE = 100, 5
"""A run that sees an example more often than this stops early by itself, after so many stale evaluations or more."""


@register("training-options", version=2)
@dataclass(frozen=True)
class TrainingOptions:
    """Everything that decides how a run goes; with the recipe and the data it decides the result, bit for bit."""

    epochs: int | None = None
    """Passes over the training data; default: 20, or as many as make 2,500 steps."""
    steps: int | None = None
    """Optimiser steps, in place of epochs."""
    batch_size: int = 128
    """Examples in a step, over all processes and accumulated parts together."""
    optimizer: Literal["adam", "adamax", "rmsprop", "sgd"] = "adam"
    """Rule of the steps; rmsprop is centred, sgd has momentum 0.9."""
    optimizer_eps: float = 1e-8
    """Constant in the denominator of every rule but sgd's."""
    lr: float = 1e-3
    """Learning rate, at its highest."""
    lr_schedule: Literal["cosine", "constant", "step"] = "cosine"
    """Learning rate over the run: half a cosine down to zero; constant; or a factor at every milestone."""
    lr_warmup: int = 0
    """Steps over which the learning rate first rises from zero."""
    lr_milestones: tuple[int, ...] = ()
    """Epochs at whose end the schedule "step" multiplies the learning rate."""
    lr_factor: float = 0.1
    """What it multiplies it by."""
    beta_warmup: float = 0.2
    """Share of the run over which the weight of the KL rises from 0 to its value."""
    beta_warmup_epochs: int | None = None
    """The same in epochs, in place of a share; it may outlast the run, of which a warning tells."""
    beta_schedule: Literal["linear", "cosine", "sigmoid", "cyclical"] = "linear"
    """How it rises; cyclical: again and again from 0, over the first half of each cycle."""
    beta_cycles: int = 4
    """How often a cyclical weight rises within its warm-up."""
    weight_decay: float = 0.0
    """Weight decay: decoupled with adam (AdamW), added to the gradient with the others."""
    clip_norm: float | None = None
    """Largest gradient norm; a longer gradient is shortened to it."""
    accumulate: int = 1
    """Parts in which a batch is worked through, to save memory."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights (0: none; 0.999 is common), which is then what is kept."""
    seed: int = 0
    """Seed of the initial weights, the order of the data and all noise."""
    initial_weights: Literal["torch", "xavier"] = "torch"
    """How a new model's weights are drawn: as torch does, or by Xavier's uniform rule with biases of zero."""
    data_start: bool = True
    """Let parts that can (the decoder's last bias, pseudo-inputs) start from training examples."""
    evaluate_every: int | None = None
    """Steps between evaluations on the validation split; default: 20 evaluations in a run, fewer where they would take
    much of its time."""
    patience: int | Literal["auto", "none"] = "auto"
    """Stop after this many evaluations without a better validation bound, once warm-up is over; auto: after those of a
    quarter of the run, where it sees each example more than 100 times; else it never stops early."""
    save_every: float = 60.0
    """Seconds between checkpoints; one is also written at each evaluation and at the end."""
    log_every: int = 50
    """Steps between reads of the metrics from the device."""
    pictures: bool = True
    """Save a picture of reconstructions and samples at each evaluation."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "64-true"] = "auto"
    """Arithmetic of the networks; auto: bf16 where the hardware multiplies it natively, else float32."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    compile: bool = False
    """Compile the step with torch.compile."""
    tensorboard: bool = False
    """Write the metrics for TensorBoard too (extra: tensorboard)."""

    def __post_init__(self) -> None:
        check_choices(self)
        if not isinstance(self.patience, int) and self.patience not in ("auto", "none"):
            raise UnknownName("patience", str(self.patience), ("auto", "none", "a number of evaluations"))
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, int | float) and not least <= value < math.inf:
                raise UsageError(
                    f"The option {name} is out of range.",
                    got=value,
                    expected=f"at least {least}",
                    remedy=f"Change {flag(name)}.",
                )
        if self.accumulate > self.batch_size:
            raise UsageError(
                "A batch is cut into no more parts than it has examples.",
                got=f"accumulate {self.accumulate}, batch_size {self.batch_size}",
                remedy="Lower --accumulate.",
            )
        if self.epochs is not None and self.steps is not None:
            raise UsageError("Give the length of the run once.", got="both epochs and steps", expected="one of them")
        if not 0 < self.lr < math.inf:
            raise UsageError("The learning rate must be positive and finite.", got=self.lr, remedy="Try --lr 1e-3.")
        if not 0 < self.optimizer_eps < math.inf:
            raise UsageError("The optimiser's eps must be positive.", got=self.optimizer_eps, remedy="Try 1e-8.")
        if not self.beta_warmup <= 1 or not self.ema < 1:
            raise UsageError("beta_warmup is a share and ema a decay.", expected="beta_warmup <= 1 and ema < 1")
        if (self.lr_schedule == "step") != bool(self.lr_milestones):
            raise UsageError(
                "Milestones and the schedule of steps belong together.",
                got=f"lr_schedule = {self.lr_schedule!r}, lr_milestones = {self.lr_milestones}",
                remedy="Try --lr-schedule step --lr-milestones 200 350.",
            )
        if not 0 < self.lr_factor < math.inf or any(m < 1 for m in self.lr_milestones):
            raise UsageError("Milestones are epochs from 1, and the factor is positive.", got=self.lr_milestones)
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UsageError("The gradient norm must be positive.", got=self.clip_norm, remedy="Try --clip-norm 1.")

    def total_steps(self, examples: int) -> int:
        """Optimiser steps of the whole run over that many training examples.

        Example:
            >>> TrainingOptions(epochs=2, batch_size=100).total_steps(250)
            6
        """
        if self.steps is not None:
            return self.steps
        per_epoch = self.steps_per_epoch(examples)
        epochs = self.epochs if self.epochs is not None else max(20, -(-2500 // per_epoch))
        return epochs * per_epoch

    def steps_per_epoch(self, examples: int) -> int:
        """Steps of one pass over that many training examples; the last may be smaller.

        Example:
            >>> TrainingOptions(batch_size=100).steps_per_epoch(250)
            3
        """
        return -(-examples // self.batch_size)

    def warmup_steps(self, examples: int) -> int:
        """Steps over which the weight of the KL rises.

        Example:
            >>> TrainingOptions(steps=100).warmup_steps(250)
            20
        """
        if self.beta_warmup_epochs is not None:
            return self.beta_warmup_epochs * self.steps_per_epoch(examples)
        return round(self.beta_warmup * self.total_steps(examples))

    def evaluation_steps(self, examples: int, validation: int, entries: int) -> int:
        """Steps between evaluations: those that the option says, else a twentieth of the run or, of small data, more.

        Args:
            examples: Size of the training split.
            validation: Size of the validation split.
            entries: Of one example.

        Example:
            >>> options = TrainingOptions(steps=200)
            >>> options.evaluation_steps(1293, 144, entries=64), options.evaluation_steps(1293, 144, entries=12288)
            (50, 10)
        """
        if self.evaluate_every is not None:
            return self.evaluate_every
        in_step = examples / self.steps_per_epoch(examples)
        least = min(FEWEST_STEPS, math.ceil(ENTRIES / (in_step * entries)))
        return max(least, math.ceil(PASSES * validation / in_step), -(-self.total_steps(examples) // EVALUATIONS))

    def evaluations_to_wait(self, examples: int, validation: int, entries: int) -> int | None:
        """After how many evaluations without a better bound the run stops; None: it does not.

        Args:
            examples: Size of the training split.
            validation: Size of the validation split.
            entries: Of one example.

        Example:
            >>> TrainingOptions().evaluations_to_wait(1293, 144, 64), TrainingOptions().evaluations_to_wait(60000, 1, 1)
            (5, None)
        """
        if isinstance(self.patience, int):
            return self.patience
        steps = self.total_steps(examples)
        if self.patience == "none" or not validation or steps <= OFTEN * self.steps_per_epoch(examples):
            return None
        return max(FEWEST_STALE, -(-steps // (4 * self.evaluation_steps(examples, validation, entries))))


@upgrade("training-options", version=1)
def _with_named_patience(fields: dict[str, Any]) -> dict[str, Any]:
    """Without a number there was no patience."""
    return {**fields, "patience": "none" if fields.get("patience") is None else fields["patience"]}


_LEAST = {
    "epochs": 1,
    "steps": 1,
    "batch_size": 1,
    "lr_warmup": 0,
    "beta_warmup": 0,
    "beta_warmup_epochs": 0,
    "beta_cycles": 1,
    "weight_decay": 0,
    "accumulate": 1,
    "ema": 0,
    "seed": 0,
    "evaluate_every": 1,
    "patience": 1,
    "save_every": 0,
    "log_every": 1,
}
