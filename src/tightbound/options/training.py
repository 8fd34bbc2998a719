"""Training options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import UnknownName, UsageError
from ..spec import flag, register, require_choices, upgrade

__all__ = ["TrainingOptions"]

EVALUATIONS = 20
"""Default number of evaluations in a run."""
FEWEST_STEPS, ENTRIES = 50, 2**23
"""Minimum steps, and minimum entries of examples, between evaluations, so that writing files and a picture stays cheap
against training."""
PASSES = 5
"""Minimum ratio of training examples to validation examples between two passes over the validation split."""
OFTEN, FEWEST_STALE = 100, 5
"""Runs with more epochs than this stop early by default, after at least this many evaluations without improvement."""


@register("training-options", version=4)
@dataclass(frozen=True)
class TrainingOptions:
    """All training options; together with recipe and data they determine the result, bit for bit."""

    epochs: int | None = None
    """Passes over the training data; default: 20, or more to reach 2,500 steps."""
    steps: int | None = None
    """Number of optimiser steps, instead of epochs."""
    batch_size: int = 128
    """Examples per step, in total over all processes and accumulated parts."""
    optimizer: Literal["adam", "adamax", "rmsprop", "sgd"] = "adam"
    """Optimiser; rmsprop is centred, sgd has momentum 0.9."""
    optimizer_eps: float = 1e-8
    """Constant eps in the denominator of every optimiser except sgd."""
    lr: float = 1e-3
    """Peak learning rate."""
    lr_schedule: Literal["cosine", "constant", "step"] = "cosine"
    """Learning rate schedule: cosine (down to zero), constant, or step (a factor at every milestone)."""
    lr_warmup: int = 0
    """Steps of linear learning rate warm-up."""
    lr_milestones: tuple[int, ...] = ()
    """Epochs after which the schedule "step" multiplies the learning rate."""
    lr_factor: float = 0.1
    """Factor of the learning rate at each milestone."""
    beta_warmup: float = 0.2
    """Share of the run over which the weight of the KL rises from 0 to its value."""
    beta_warmup_epochs: int | None = None
    """The same in epochs, instead of a share; a warning is printed if it outlasts the run."""
    beta_schedule: Literal["linear", "cosine", "sigmoid", "cyclical"] = "linear"
    """Shape of the KL warm-up; cyclical: rises from 0 over the first half of each cycle."""
    beta_cycles: int = 4
    """Number of cycles in a cyclical warm-up."""
    weight_decay: float = 0.0
    """Weight decay: decoupled for adam (AdamW), added to the gradient for the others."""
    clip_norm: float | Literal["auto", "none"] = "auto"
    """Maximum gradient norm, in nats per example; larger gradients are clipped to it. Auto: as the recipe asks, which
    for a ladder and a vdvae is a quarter of a nat for each dimension of an example; else none."""
    skip_norm: float | None = None
    """Skip a step whose gradient, of all parameters and before clipping, has a larger norm. metrics.jsonl then has the
    largest norm since the last record, so a first run with a huge value shows what is usual."""
    skip_nonfinite: bool = False
    """Skip a step whose loss or gradient is not finite, instead of ending the run; 100 of them in a row end it."""
    accumulate: int = 1
    """Number of parts a batch is split into (gradient accumulation), to save memory."""
    ema: float | Literal["auto"] = "auto"
    """Decay of an exponential moving average of the weights (0: none; 0.999 is common); the averaged weights are the
    ones saved. Auto: 0.999 for diffusion, else none."""
    seed: int = 0
    """Seed of the initial weights, the order of the data and all noise."""
    initial_weights: Literal["torch", "xavier"] = "torch"
    """Initialisation of a new model's weights: torch's default, or Xavier uniform with zero biases."""
    data_start: bool = True
    """Initialise parts that support it (the decoder's last bias, pseudo-inputs) from training examples."""
    evaluate_every: int | None = None
    """Steps between evaluations on the validation split; default: 20 evaluations in a run, fewer if they would take
    much of its time."""
    patience: int | Literal["auto", "none"] = "auto"
    """Stop early after this many evaluations without a better validation bound, counted from the end of warm-up; auto:
    a quarter of the run's evaluations if the run has more than 100 epochs, else never."""
    save_every: float = 60.0
    """Seconds between checkpoints; one is also written at each evaluation and at the end."""
    log_every: int = 50
    """Steps between metric logs."""
    pictures: bool = True
    """Save an image of reconstructions and samples at each evaluation."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "64-true"] = "auto"
    """Precision of the networks; auto: bf16 if the hardware supports it natively, else float32."""
    device: str = "auto"
    """Device to train on: auto, cpu, cuda or mps."""
    compile: bool = False
    """Compile the training step with torch.compile."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard (needs the extra tensorboard)."""

    def __post_init__(self) -> None:
        require_choices(self)
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
                "A batch cannot be split into more parts than it has examples.",
                got=f"accumulate {self.accumulate}, batch_size {self.batch_size}",
                remedy="Lower --accumulate.",
            )
        if self.epochs is not None and self.steps is not None:
            raise UsageError(
                "Give either epochs or steps, not both.", got="both epochs and steps", expected="one of them"
            )
        if not 0 < self.lr < math.inf:
            raise UsageError("The learning rate must be positive and finite.", got=self.lr, remedy="Try --lr 1e-3.")
        if not 0 < self.optimizer_eps < math.inf:
            raise UsageError("The optimiser's eps must be positive.", got=self.optimizer_eps, remedy="Try 1e-8.")
        if isinstance(self.ema, str) and self.ema != "auto":
            raise UnknownName("moving average", self.ema, ("auto", "a decay from 0 to below 1"))
        if not self.beta_warmup <= 1 or not (isinstance(self.ema, str) or self.ema < 1):
            raise UsageError("beta_warmup must be at most 1, and ema below 1.", expected="beta_warmup <= 1 and ema < 1")
        if (self.lr_schedule == "step") != bool(self.lr_milestones):
            raise UsageError(
                "Milestones and the schedule 'step' must be used together.",
                got=f"lr_schedule = {self.lr_schedule!r}, lr_milestones = {self.lr_milestones}",
                remedy="Try --lr-schedule step --lr-milestones 200 350.",
            )
        if not 0 < self.lr_factor < math.inf or any(m < 1 for m in self.lr_milestones):
            raise UsageError("Milestones must be at least 1, and the factor positive.", got=self.lr_milestones)
        if isinstance(self.clip_norm, str) and self.clip_norm not in ("auto", "none"):
            raise UnknownName("gradient norm", self.clip_norm, ("auto", "none", "a positive number"))
        if isinstance(self.clip_norm, float | int) and not self.clip_norm > 0:
            raise UsageError("The gradient norm must be positive.", got=self.clip_norm, remedy="Try --clip-norm 1.")
        if self.skip_norm is not None and not self.skip_norm > 0:
            raise UsageError(
                "The gradient norm above which a step is skipped must be positive.",
                got=f"skip_norm = {self.skip_norm:g}",
                expected="several times the usual norm",
                remedy="Try --skip-norm 1e6, and see gradient_norm in metrics.jsonl; or leave it out.",
            )

    def total_steps(self, examples: int) -> int:
        """Optimiser steps of the run for that many training examples.

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
        """Steps between evaluations: the option if given, else a twentieth of the run, or more for small data.

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
        """Number of evaluations without a better bound after which the run stops; None: it does not.

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
    """In older versions None meant no early stopping."""
    return {**fields, "patience": "none" if fields.get("patience") is None else fields["patience"]}


@upgrade("training-options", version=2)
def _with_named_limit(fields: dict[str, Any]) -> dict[str, Any]:
    """In older versions None meant no clipping."""
    return {**fields, "clip_norm": "none" if fields.get("clip_norm") is None else fields["clip_norm"]}


@upgrade("training-options", version=3)
def _without_average(fields: dict[str, Any]) -> dict[str, Any]:
    """In older versions no recipe had an average of its own."""
    return {"ema": 0.0} | fields


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
