"""Numbers that say what they are, with their errors."""

from .annealed import Annealing, Bidirectional, annealed, bidirectional
from .codes import code_usage
from .contrastive import best_of, rank, retrieval_accuracy, train_contrastive
from .decoder_noise import DecoderNoise, decoder_noise, learned_sigma
from .decomposition import Decomposition, decompose
from .diagnosis import Diagnosis, diagnose
from .estimate import Estimate
from .evaluate import Evaluation, evaluate
from .gaps import Gaps, gaps
from .importance import from_prior, per_example
from .log_likelihood import LikelihoodEstimate, likelihood
from .pareto import pareto_k
from .relaxation import RelaxationGap, relaxation_gap
from .sample_quality import SampleQuality, frechet_distance, sample_quality, train_classifier

__all__ = [
    "Annealing",
    "Bidirectional",
    "DecoderNoise",
    "Decomposition",
    "Diagnosis",
    "Estimate",
    "Evaluation",
    "Gaps",
    "LikelihoodEstimate",
    "RelaxationGap",
    "SampleQuality",
    "annealed",
    "best_of",
    "bidirectional",
    "code_usage",
    "decoder_noise",
    "decompose",
    "diagnose",
    "evaluate",
    "frechet_distance",
    "from_prior",
    "gaps",
    "learned_sigma",
    "likelihood",
    "pareto_k",
    "per_example",
    "rank",
    "relaxation_gap",
    "retrieval_accuracy",
    "sample_quality",
    "train_classifier",
    "train_contrastive",
]
