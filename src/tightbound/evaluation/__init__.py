"""Numbers that say what they are, with their errors."""

from .annealed import Annealing, Bidirectional, annealed, bidirectional
from .decomposition import Decomposition, decompose
from .diagnosis import Diagnosis, diagnose
from .estimate import Estimate
from .evaluate import Evaluation, evaluate
from .gaps import Gaps, gaps
from .importance import from_prior, per_example
from .log_likelihood import LikelihoodEstimate, likelihood
from .pareto import pareto_k

__all__ = [
    "Annealing",
    "Bidirectional",
    "Decomposition",
    "Diagnosis",
    "Estimate",
    "Evaluation",
    "Gaps",
    "LikelihoodEstimate",
    "annealed",
    "bidirectional",
    "decompose",
    "diagnose",
    "evaluate",
    "from_prior",
    "gaps",
    "likelihood",
    "pareto_k",
    "per_example",
]
