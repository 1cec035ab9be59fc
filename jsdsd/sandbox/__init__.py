"""2D targets with exact scores, particles, metrics and plots: mode seeking and mode covering, seen and measured."""

from .density import plot_density
from .distributions import (
    TARGETS,
    ConditionalMixture,
    GaussianMixture,
    checkerboard,
    grid,
    moons,
    off_centre,
    random_mixture,
    ring,
    spiral,
    unbalanced,
)
from .fits import GaussianFit, NetworkFit, fit_gaussian, fit_network, gaussian_divergence, two_modes
from .metrics import (
    energy_distance,
    mode_divergence,
    mode_histogram,
    on_mode_share,
    sliced_wasserstein,
    spread_ratio,
)
from .particles import Particles, fit_particles, trajectories
from .plots import (
    animate,
    plot_gradient_field,
    plot_loss_landscape,
    plot_one_gaussian,
    plot_particles,
    plot_trajectories,
    plot_weights,
)

__all__ = [
    "TARGETS",
    "ConditionalMixture",
    "GaussianFit",
    "GaussianMixture",
    "NetworkFit",
    "Particles",
    "animate",
    "checkerboard",
    "energy_distance",
    "fit_gaussian",
    "fit_network",
    "fit_particles",
    "gaussian_divergence",
    "grid",
    "mode_divergence",
    "mode_histogram",
    "moons",
    "off_centre",
    "on_mode_share",
    "plot_density",
    "plot_gradient_field",
    "plot_loss_landscape",
    "plot_one_gaussian",
    "plot_particles",
    "plot_trajectories",
    "plot_weights",
    "random_mixture",
    "ring",
    "sliced_wasserstein",
    "spiral",
    "spread_ratio",
    "trajectories",
    "two_modes",
    "unbalanced",
]
