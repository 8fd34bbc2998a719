"""How a model is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError
from ..spec import check_choices, register

__all__ = ["TrainingOptions"]


@register("training-options")
@dataclass(frozen=True)
class TrainingOptions:
    """Everything that decides how a run goes; with the recipe and the data it decides the result, bit for bit."""

    epochs: int | None = None
    """Passes over the training data; default: 20, or as many as make 2,500 steps."""
    steps: int | None = None
    """Optimiser steps, in place of epochs."""
    batch_size: int = 128
    """Examples in a step, over all processes and accumulated parts together."""
    lr: float = 1e-3
    """Learning rate of Adam, at its highest."""
    lr_schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate over the run: half a cosine down to zero, or constant."""
    lr_warmup: int = 0
    """Steps over which the learning rate first rises from zero."""
    beta_warmup: float = 0.2
    """Share of the run over which the weight of the KL rises from 0 to its value."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW)."""
    clip_norm: float | None = None
    """Largest gradient norm; a longer gradient is shortened to it."""
    accumulate: int = 1
    """Parts in which a batch is worked through, to save memory."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights (0: none; 0.999 is common), which is then what is kept."""
    seed: int = 0
    """Seed of the initial weights, the order of the data and all noise."""
    evaluate_every: int | None = None
    """Steps between evaluations on the validation split; default: 20 evaluations in a run."""
    patience: int | None = None
    """Stop after this many evaluations without a better validation bound, once warm-up is over."""
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
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise UsageError(
                    f"The option {name} is out of range.",
                    got=value,
                    expected=f"at least {least}",
                    remedy=f"Change --{name.replace('_', '-')}.",
                )
        if self.epochs is not None and self.steps is not None:
            raise UsageError("Give the length of the run once.", got="both epochs and steps", expected="one of them")
        if not 0 < self.lr < math.inf:
            raise UsageError("The learning rate must be positive and finite.", got=self.lr, remedy="Try --lr 1e-3.")
        if not self.beta_warmup <= 1 or not self.ema < 1:
            raise UsageError("beta_warmup is a share and ema a decay.", expected="beta_warmup <= 1 and ema < 1")
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
        per_epoch = -(-examples // self.batch_size)
        epochs = self.epochs if self.epochs is not None else max(20, -(-2500 // per_epoch))
        return epochs * per_epoch


_LEAST = {
    "epochs": 1,
    "steps": 1,
    "batch_size": 1,
    "lr_warmup": 0,
    "beta_warmup": 0,
    "weight_decay": 0,
    "accumulate": 1,
    "ema": 0,
    "seed": 0,
    "evaluate_every": 1,
    "patience": 1,
    "save_every": 0,
    "log_every": 1,
}
