"""Numbers that say what they are, with their errors."""

from .estimate import Estimate
from .evaluate import Evaluation, evaluate
from .likelihood import per_example

__all__ = ["Estimate", "Evaluation", "evaluate", "per_example"]
