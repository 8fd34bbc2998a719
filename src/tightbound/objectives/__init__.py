r"""Objectives: functions of the terms of a model, one number per example, in nats, to be maximised.

Convention: :math:`z_1, \dots, z_k \sim q(z \mid x, c)` and :math:`w_j = p(x, z_j \mid c) / q(z_j \mid x, c)`; the
caller averages over the batch. Only ``elbo`` at beta = 1 and ``iwae`` are bounds to report.

Each is also a value stored in a recipe and in files: ``VAE(objective=Iwae(samples=5))``.
"""

from ..options.objectives import (
    Capacity,
    Elbo,
    Gsnn,
    Hybrid,
    Iwae,
    LatentObjective,
    Mmd,
    NaiveMonteCarlo,
    Objective,
    Score,
    StickingTheLanding,
    TotalCorrelation,
)
from .balancing import balanced, kl_weights
from .bounds import elbo, iwae, reconstruction
from .gradients import dreg, score_function, sticking_the_landing
from .penalties import beta_tcvae, capacity, free_bits, info_vae, mmd, total_correlation
from .prediction import gsnn, hybrid, naive_monte_carlo
from .quantized import vq
from .rows import OfTerms, rows

__all__ = [
    "Capacity",
    "Elbo",
    "Gsnn",
    "Hybrid",
    "Iwae",
    "LatentObjective",
    "Mmd",
    "NaiveMonteCarlo",
    "Objective",
    "OfTerms",
    "Score",
    "StickingTheLanding",
    "TotalCorrelation",
    "balanced",
    "beta_tcvae",
    "capacity",
    "dreg",
    "elbo",
    "free_bits",
    "gsnn",
    "hybrid",
    "info_vae",
    "iwae",
    "kl_weights",
    "mmd",
    "naive_monte_carlo",
    "reconstruction",
    "rows",
    "score_function",
    "sticking_the_landing",
    "total_correlation",
    "vq",
]
