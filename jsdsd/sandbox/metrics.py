"""Did the particles find every mode, in the right shares, with the right spread? And what each number misses."""

from __future__ import annotations

import torch
from torch import Tensor

from ..objectives.divergences import JensenShannon
from .distributions import GaussianMixture


def mode_histogram(points: Tensor, target: GaussianMixture) -> Tensor:
    """(M,) share of points (N, d) in each of the target's modes, by posterior probability; sums to 1.

    For points drawn from the target its mean is exactly `target.mode_weights`. Says nothing about points off every
    mode: see `on_mode_share`. ValueError for an empty or non-finite set.
    """
    points = _points(points, target)
    by_component = target.responsibilities(points).mean(0)  # (K,)
    return torch.zeros_like(target.mode_weights).index_add(0, target.groups, by_component)


def mode_divergence(points: Tensor, target: GaussianMixture) -> float:
    """Jensen-Shannon divergence between `mode_histogram` and the true mode weights: 0 (perfect) ... log 2, nats.

    N perfect samples have about (M-1)/(8N) of it: .0034 for 8 modes and 256 points. points (N, d); ValueError for an
    empty or non-finite set.
    """
    histogram, truth = (w.double() / w.double().sum() for w in (mode_histogram(points, target), target.mode_weights))
    return float(JensenShannon().discrete(truth, histogram))


def on_mode_share(points: Tensor, target: GaussianMixture, radius: float = 3.0) -> float:
    """Share of points (N, d) within `radius` > 0 standard deviations of some component's mean, 0 ... 1.

    In 2D the target itself has 1 - exp(-radius²/2) = .989 of it for radius 3 (separated components). ValueError for
    an empty or non-finite set, or radius <= 0.
    """
    if not radius > 0:
        raise ValueError(f"radius must be > 0 standard deviations, got {radius}")
    points = _points(points, target)
    distance = torch.cdist(points, target.means) / target.std  # (N, K)
    return float((distance.min(1).values <= radius).float().mean())


def spread_ratio(points: Tensor, target: GaussianMixture) -> float:
    """Spread of the points inside their modes over the target's: 1 is right, 0 is collapse to points.

    Both sides: root of the weighted mean squared distance to the own mode's centre; modes weighted as the points are,
    so that a missed mode does not count here. Points off every mode make it large.
    """
    points = _points(points, target)
    groups, modes = target.groups, len(target.mode_weights)
    per_mode = torch.zeros(modes, len(target.means)).to(target.means)
    per_mode[groups, torch.arange(len(target.means))] = 1.0
    resp = target.responsibilities(points) @ per_mode.T  # (N, M)
    mass = resp.sum(0).clamp(min=1e-12)
    centre = resp.T @ points / mass[:, None]
    found = (resp * torch.cdist(points, centre) ** 2).sum(0)
    share = per_mode * target.weights / target.mode_weights[:, None]  # (M, K)
    true_centre = share @ target.means
    var = target.dim * target.std**2 + torch.cdist(true_centre, target.means) ** 2
    expected = (share * var).sum(1) * resp.sum(0)
    return float((found.sum() / expected.sum()).sqrt())


def sliced_wasserstein(a: Tensor, b: Tensor, projections: int = 128, generator: torch.Generator | None = None) -> float:
    """Sliced 2-Wasserstein distance between point sets of one size (N, d), in the units of the data.

    Root of the mean, over random directions, of the squared distance between sorted projections (Rabin et al. 2012,
    not re-read). generator: of the directions. ValueError if the shapes differ, for an empty or non-finite set, or
    projections < 1.
    """
    if a.shape != b.shape or projections < 1:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}, {projections} projections"
        raise ValueError(f"need two sets of one shape (N, d) and projections >= 1, got {shapes}")
    _two_sets(a, b)
    direction = torch.randn(a.shape[1], projections, generator=generator).to(a)
    direction = direction / direction.norm(dim=0)
    gap = (a @ direction).sort(0).values - (b @ direction).sort(0).values  # (N, projections)
    return float(gap.square().mean().sqrt())


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|a-b| - E|a-a'| - E|b-b'| >= 0 between point sets (N, d) and (M, d), in the units of the data.

    Zero only for equal sets (Székely & Rizzo, not re-read); pairs of a point with itself are counted, as in scipy.
    ValueError for other shapes, or an empty or non-finite set.
    """
    _two_sets(a, b)
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def _two_sets(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or 0 in (len(a), len(b)):
        raise ValueError(f"need point sets (N, d) and (M, d), N, M >= 1, got {tuple(a.shape)} and {tuple(b.shape)}")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("points must be finite: the run that made them diverged")


def _points(points: Tensor, target: GaussianMixture) -> Tensor:
    points = torch.as_tensor(points)  # an array or a list is as good
    if points.ndim != 2 or points.shape[1] != target.dim or len(points) == 0:
        raise ValueError(f"points must have shape (N, {target.dim}) with N >= 1, got {tuple(points.shape)}")
    if not points.isfinite().all():
        raise ValueError("points must be finite: the run that made them diverged")
    return points.detach().to(target.means)
