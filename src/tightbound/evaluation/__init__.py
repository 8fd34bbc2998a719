"""Evaluation: numbers with units, meanings and standard errors."""

from .collapse.decoder_noise import DecoderNoise, decoder_noise, learned_sigma, reconstruction_errors
from .collapse.decomposition import Decomposition, decompose
from .collapse.diagnosis import Diagnosis, diagnose
from .collapse.gaps import Gaps, gaps
from .collapse.relaxation import RelaxationGap, relaxation_gap
from .estimate import Estimate
from .evaluate import evaluate
from .latents.codes import code_usage
from .log_likelihood.annealed import Annealing, Bidirectional, annealed, bidirectional
from .log_likelihood.importance import from_prior, per_example
from .log_likelihood.methods import LikelihoodEstimate, likelihood
from .log_likelihood.pareto import pareto_k
from .results import Evaluation
from .samples.quality import SampleQuality, frechet_distance, sample_quality
from .samples.retrieval import best_of, rank, retrieval_accuracy

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
    "reconstruction_errors",
    "relaxation_gap",
    "retrieval_accuracy",
    "sample_quality",
]
