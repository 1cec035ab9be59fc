"""Two small generators under each divergence: one Gaussian (exactly, by quadrature) and a tiny network (by samples).

Here the divergence itself is minimised at noise level 0, without annealing: what it covers or drops is its own doing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..objectives.distillation import Anneal, surrogate_loss
from ..objectives.divergence import Divergence
from ..objectives.ensemble import Ensemble
from .distributions import GaussianMixture


@dataclass(frozen=True)
class GaussianFit:
    """The best N(mean, std²) found, and its divergence from the target (nats)."""

    mean: float
    std: float
    value: float


def two_modes(separation: float, weight: float = 0.5) -> GaussianMixture:
    """weight N(-separation, 1) + (1-weight) N(separation, 1), the 1-D target of `fit_gaussian`. ValueError unless 0 <
    weight < 1.
    """
    if not 0 < weight < 1:
        raise ValueError(f"weight must lie strictly between 0 and 1, got {weight}")
    means = torch.tensor([[-separation], [separation]], dtype=torch.float64)
    return GaussianMixture(means, 1.0, torch.tensor([weight, 1 - weight], dtype=torch.float64))


def gaussian_divergence(divergence: Divergence, target: GaussianMixture, mean: Tensor, log_std: Tensor) -> Tensor:
    """D_f(target ‖ N(mean, exp(log_std)²)) in 1-D for grids of parameters (...), nats; differentiable, by quadrature.

    Trapezoid rule, a third of the target's finest std apart, over 7 times the target's own reach either side: exact
    to rounding for a std from half the finest to the target's reach. ValueError unless the target is 1-D,
    TypeError for what is no Divergence.
    """
    if not isinstance(divergence, Divergence):
        raise TypeError(f"divergence must be an object like JensenShannon(), got {divergence!r}")
    if target.dim != 1:
        raise ValueError(f"needs a 1-D target, like two_modes(3.0); got dimension {target.dim}")
    std, finest, span = log_std.exp(), float(target.std.min()), _span(target)
    centre, reach = float(target.means.mean()), 7 * span
    x = torch.arange(centre - reach, centre + reach, finest / 3, dtype=torch.float64)  # (P,)
    log_p = target.log_prob(x[:, None])  # (P,)
    z = (x - mean[..., None]) / std[..., None]  # (..., P)
    log_q = -0.5 * z**2 - log_std[..., None] - 0.5 * math.log(2 * math.pi)
    return divergence.terms(log_p.expand_as(log_q), log_q).sum(-1) * finest / 3


def fit_gaussian(divergence: Divergence, target: GaussianMixture, zooms: int = 16) -> GaussianFit:
    """The Gaussian of least divergence from a 1-D target: a 41 x 31 grid over all means and widths, then `zooms`
    smaller grids, each half the last one's size, around the best point so far (no gradients, no luck with starts).

    Mode seeking shows as one mode taken (std near the mode's own), covering as std near the target's. Of equal minima
    one is returned. A Gaussian under which f(r) overflows counts as infinitely far. ValueError unless the target is 1-D
    and zooms >= 0, or if no Gaussian at all has a finite divergence.
    """
    if target.dim != 1 or zooms < 0:
        raise ValueError(f"needs a 1-D target, like two_modes(3.0), and zooms >= 0; got dim {target.dim} and {zooms}")
    low, high = float(target.means.min()), float(target.means.max())
    narrow, wide = math.log(float(target.std.min()) / 2), math.log(_span(target))
    mean, log_std, half, half_log = (low + high) / 2, (narrow + wide) / 2, (high - low) / 2 + 1e-3, (wide - narrow) / 2
    value, sizes = math.inf, (41, 31)
    for _ in range(zooms + 1):
        means = torch.linspace(mean - half, mean + half, sizes[0], dtype=torch.float64)
        log_stds = torch.linspace(log_std - half_log, log_std + half_log, sizes[1], dtype=torch.float64)
        m, s = torch.meshgrid(means, log_stds.clamp(narrow, wide), indexing="ij")
        values = gaussian_divergence(divergence, target, m.flatten(), s.flatten())
        values = torch.where(values.isnan(), math.inf, values)
        best = int(values.argmin())
        mean, log_std, value = float(m.flatten()[best]), float(s.flatten()[best]), float(values[best])
        half, half_log, sizes = (
            (half / 2, half_log / 2, (9, 9)) if sizes == (9, 9) else (half / 4, half_log / 4, (9, 9))
        )
    if not math.isfinite(value):
        raise ValueError(f"no Gaussian has a finite value of {divergence!r} from this target: f(r) overflows")
    return GaussianFit(mean, math.exp(log_std), value)


def _span(target: GaussianMixture) -> float:
    """Reach of a 1-D target: half its range of means plus four of its widest std."""
    return float(target.means.max() - target.means.min()) / 2 + 4 * float(target.std.max())


@dataclass(frozen=True, eq=False)
class NetworkFit:
    """A trained generator z -> x and what it became."""

    generator: nn.Module
    sample: Callable[[int, int], Tensor]  # (n, seed) -> (n, 2)


def fit_network(
    target: GaussianMixture,
    divergence: Divergence,
    steps: int = 1000,
    seed: int = 0,
    batch: int = 256,
    width: int = 64,
    lr: float = 2e-3,
    latent_dim: int = 2,
) -> NetworkFit:
    """Train x = g(z), z ~ N(0, I), a network with 2 hidden layers, by the ensemble gradient of its own batch.

    A fresh batch of z each step, so the network must represent the distribution, not remember points. q_t is the
    mixture of the *batch*: a noisy, slightly too narrow stand-in for the generator's own density. seed: of weights,
    z and noise. lr: Adam's. ValueError for steps, width or latent_dim < 1, batch < 2, lr <= 0.
    """
    if min(steps, width, latent_dim) < 1 or batch < 2 or not lr > 0:
        got = f"{steps}, {width}, {latent_dim}, {batch} and {lr}"
        raise ValueError(f"need steps, width and latent_dim >= 1, batch >= 2 and lr > 0, got {got}")
    rng, times, objective = torch.Generator().manual_seed(seed), Anneal(), Ensemble(divergence)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(latent_dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
        net = nn.Sequential(*layers, nn.Linear(width, target.dim))
    optimizer = torch.optim.Adam(net.parameters(), lr)
    for step in range(steps):
        x0 = net(torch.randn(batch, latent_dim, generator=rng))  # (batch, 2)
        t = times(step, steps, target.schedule)
        loss = surrogate_loss(x0, objective.gradient(target, x0, t, rng).grad) / batch
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def sample(n: int, sample_seed: int) -> Tensor:
        return net(torch.randn(n, latent_dim, generator=torch.Generator().manual_seed(sample_seed)))

    return NetworkFit(net, sample)
