"""What is minimised. Knows no images and no diffusers: a denoiser, points x0, and a gradient on them."""

from .diffusion import Denoiser, Schedule, ddim_sample, guide
from .distillation import (
    SDS,
    Anneal,
    DistillationStep,
    DistillRecord,
    Objective,
    UniformTime,
    distill,
    surrogate_loss,
)
from .divergence import Divergence, Estimate
from .divergences import (
    DIVERGENCES,
    ForwardKL,
    Jeffreys,
    JensenShannon,
    ReverseKL,
    SkewJS,
    SoftenedReverseKL,
    SquaredHellinger,
)
from .ensemble import Ensemble
from .inversion import JSD, SDI, ddim_invert
from .log_odds import (
    EnsembleLogOdds,
    ExactLogOdds,
    LearnedLogOdds,
    calibration_curve,
    discriminator,
    jsd_lower_bound,
    non_saturating_weight,
    particle_mixture,
    saturating_weight,
)
from .seeded import Seeded

__all__ = [
    "DIVERGENCES",
    "JSD",
    "SDI",
    "SDS",
    "Anneal",
    "Denoiser",
    "DistillRecord",
    "DistillationStep",
    "Divergence",
    "Ensemble",
    "EnsembleLogOdds",
    "Estimate",
    "ExactLogOdds",
    "ForwardKL",
    "Jeffreys",
    "JensenShannon",
    "LearnedLogOdds",
    "Objective",
    "ReverseKL",
    "Schedule",
    "Seeded",
    "SkewJS",
    "SoftenedReverseKL",
    "SquaredHellinger",
    "UniformTime",
    "calibration_curve",
    "ddim_invert",
    "ddim_sample",
    "discriminator",
    "distill",
    "guide",
    "jsd_lower_bound",
    "non_saturating_weight",
    "particle_mixture",
    "saturating_weight",
    "surrogate_loss",
]
