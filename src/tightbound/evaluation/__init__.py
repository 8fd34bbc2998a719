"""Numbers that say what they are, with their errors."""

from .annealed import Annealing, Bidirectional, annealed, bidirectional
from .estimate import Estimate
from .evaluate import Evaluation, evaluate
from .importance import from_prior, per_example
from .log_likelihood import LikelihoodEstimate, likelihood
from .pareto import pareto_k

__all__ = [
    "Annealing",
    "Bidirectional",
    "Estimate",
    "Evaluation",
    "LikelihoodEstimate",
    "annealed",
    "bidirectional",
    "evaluate",
    "from_prior",
    "likelihood",
    "pareto_k",
    "per_example",
]
