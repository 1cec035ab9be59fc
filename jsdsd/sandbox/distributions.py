"""2D targets with nothing to guess: density, score and noise prediction are exact at every noise level.

A mixture of isotropic Gaussians stays one under diffusion:

    p = sum_k w_k N(m_k, s_k² I)   =>   p_t = sum_k w_k N(alpha m_k, (alpha² s_k² + sigma²) I)

so `GaussianMixture` stands where SDXL stands in 3D: it has a schedule and `predict_eps`, and all else is unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..objectives.diffusion import Parts, Schedule, Time, guide

DEFAULT_SCHEDULE = Schedule.scaled_linear()


class GaussianMixture:
    """sum_k weights_k N(means_k, std_k² I), at every level of `schedule`.

    means (K, d); std one number or (K,), > 0, same units; weights (K,) > 0, normalised here, None = equal. groups
    (K,) long: which *mode* a component belongs to (several may make one crescent); None = each its own. ValueError
    for wrong shapes, non-positive std or weights, NaN. Computes in the type of `means` (float32 unless it is floating
    already), at points of any floating type. Every method at points x (B, d) takes t as an int or (B,) long, and
    raises ValueError for another shape or a t outside the schedule.
    """

    guidance_scale = 1.0  # a mixture without classes has nothing to guide: every scale predicts the same

    def __init__(
        self,
        means: Tensor,
        std: Tensor | float,
        weights: Tensor | None = None,
        groups: Tensor | None = None,
        schedule: Schedule = DEFAULT_SCHEDULE,
    ) -> None:
        means = torch.as_tensor(means)
        self.means = means if means.is_floating_point() else means.float()  # (K, d)
        if means.ndim != 2 or len(means) == 0 or not means.isfinite().all():
            raise ValueError(f"means must be finite, of shape (K, d) with K >= 1, got {tuple(means.shape)}")
        std = torch.as_tensor(std).to(self.means)
        self.std = std.repeat(len(means)) if std.ndim == 0 else std  # (K,)
        weights = torch.as_tensor(torch.ones(len(means)) if weights is None else weights).to(self.means)
        for name, x in (("std", self.std), ("weights", weights)):
            if x.shape != (len(means),) or not (x > 0).all() or not x.isfinite().all():
                raise ValueError(f"{name} must be {len(means)} positive finite numbers, got {x.tolist()}")
        self.weights = weights / weights.sum()  # (K,)
        groups = torch.as_tensor(torch.arange(len(means)) if groups is None else groups)
        if groups.shape != (len(means),) or groups.is_floating_point() or int(groups.min()) < 0:
            raise ValueError(f"groups must be {len(means)} integers >= 0, got shape {tuple(groups.shape)}")
        self.groups = groups.to(means.device)  # (K,)
        self.schedule = schedule

    def __repr__(self) -> str:
        return f"GaussianMixture({len(self.means)} components in {len(self.mode_weights)} modes, dim {self.dim})"

    def _repr_png_(self) -> bytes | None:
        """In a notebook: the density, where it lies in a plane."""
        if self.dim != 2:
            return None
        from io import BytesIO

        from matplotlib.figure import Figure

        from .density import plot_density

        figure, file = Figure(figsize=(3, 3), dpi=80, layout="tight"), BytesIO()
        plot_density(figure.subplots(), self)
        figure.savefig(file, format="png")
        return file.getvalue()

    @property
    def dim(self) -> int:
        """d, the dimension of a point."""
        return self.means.shape[1]

    @property
    def mode_weights(self) -> Tensor:
        """(M,) true probability of each mode (group of components)."""
        modes = int(self.groups.max()) + 1
        return torch.zeros(modes).to(self.means).index_add(0, self.groups, self.weights)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, d) clean samples. ValueError if n < 1."""
        if n < 1:
            raise ValueError(f"n must be >= 1, got {n}")
        device = self.means.device if generator is None else generator.device
        weights = self.weights.to(device)
        which = torch.multinomial(weights, n, replacement=True, generator=generator).to(self.means.device)
        noise = torch.randn(n, self.dim, generator=generator, device=device).to(self.means)
        return self.means[which] + self.std[which, None] * noise

    def log_prob(self, x: Tensor, t: Time | None = None) -> Tensor:
        """log p_t(x) (B,), nats, at x (B, d); t None = the clean density."""
        logits, _, _ = self._components(x, t)
        return torch.logsumexp(logits, 1)

    def responsibilities(self, x: Tensor, t: Time | None = None) -> Tensor:
        """(B, K) posterior probability of each component at x (B, d)."""
        return torch.softmax(self._components(x, t)[0], 1)

    def score(self, x: Tensor, t: Time | None = None) -> Tensor:
        """grad log p_t(x) = sum_k resp_k (alpha m_k - x)/var_k, (B, d) at x (B, d)."""
        logits, alpha, var = self._components(x, t)
        pull = torch.softmax(logits, 1) / var  # (B, K)
        return alpha * (pull @ self.means) - pull.sum(1, keepdim=True) * x

    def predict_eps(self, x_t: Tensor, t: Time, guidance_scale: float | None = None) -> Tensor:
        """The exact noise prediction -sigma_t score(x_t, t), (B, d), x_t's type; without classes guidance changes
        nothing.
        """
        return self.schedule.eps_from_score(self.score(x_t, t), t).to(x_t)

    def _components(self, x: Tensor, t: Time | None) -> tuple[Tensor, float | Tensor, Tensor]:
        """log(w_k N(x; alpha m_k, var_k)) (B, K), alpha, var (K,) or, with one t per sample, (B, K)."""
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"points must have shape (B, {self.dim}), got {tuple(x.shape)}")
        x = x.to(self.means.dtype)
        alpha, sigma = (1.0, 0.0) if t is None else self.schedule.levels(t, x)  # float or (B, 1)
        var = torch.as_tensor(alpha**2 * self.std**2 + sigma**2)  # (K,) or (B, K)
        if isinstance(alpha, Tensor):
            distance = torch.stack([(x - alpha * m).square().sum(1) for m in self.means], 1)  # one t per sample
        else:
            distance = torch.cdist(x, alpha * self.means, compute_mode="donot_use_mm_for_euclid_dist") ** 2
        log_norm = self.weights.log() - self.dim / 2 * (2 * math.pi * var).log()
        return log_norm - distance / (2 * var), alpha, var


@dataclass(frozen=True, eq=False)
class ConditionalMixture:
    """A mixture with a class y chosen, and classifier-free guidance towards it: the sandbox's prompt.

    mixture: the unconditional target, whose `groups` are the classes. label: y. guidance_scale: diffusers'
    convention, 1 = p(x|y), 0 = p(x). For other scales the guided score at each level is that of p_t(x)^(1-s)
    p_t(x|y)^s, unnormalised, and these are not one diffused density (Ho & Salimans 2022, not re-read). ValueError for
    a label no component has or a guidance_scale that is not finite.
    """

    mixture: GaussianMixture
    label: int
    guidance_scale: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale must be finite, got {self.guidance_scale}")
        if not (self.mixture.groups == self.label).any():
            raise ValueError(f"no component has label {self.label}; labels are {self.mixture.groups.unique().tolist()}")

    @property
    def schedule(self) -> Schedule:
        """The mixture's."""
        return self.mixture.schedule

    @property
    def given_label(self) -> GaussianMixture:
        """p(x|y), a mixture of the class's own components."""
        m, own = self.mixture, self.mixture.groups == self.label
        return GaussianMixture(m.means[own], m.std[own], m.weights[own], schedule=m.schedule)

    def predict_eps(self, x_t: Tensor, t: Time, guidance_scale: float | None = None) -> Tensor:
        """eps_0 + s (eps_y - eps_0), (B, d); None = its own scale."""
        return self.predict_parts(x_t, t, guidance_scale).guided

    def predict_parts(self, x_t: Tensor, t: Time, guidance_scale: float | None = None) -> Parts:
        """The same with both its halves."""
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        eps_0, eps_y = self.mixture.predict_eps(x_t, t), self.given_label.predict_eps(x_t, t)
        return Parts(guide(eps_0, eps_y, scale), eps_0, eps_y)

    def log_prob(self, x: Tensor, t: Time | None = None) -> Tensor:
        """(1-s) log p_t(x) + s log p_t(x|y), (B,): normalised only for s = 0 and s = 1."""
        s = self.guidance_scale
        return (1 - s) * self.mixture.log_prob(x, t) + s * self.given_label.log_prob(x, t)

    @property
    def can_sample(self) -> bool:
        """Whether `sample` gives what it denoises: at guidance_scale 1 only."""
        return self.guidance_scale == 1

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, d) samples of p(x|y). ValueError for another guidance scale than 1: its target cannot be sampled
        exactly.
        """
        if not self.can_sample:
            raise ValueError(f"exact samples exist for guidance_scale = 1 only, it is {self.guidance_scale}")
        return self.given_label.sample(n, generator)


def ring(modes: int = 8, radius: float = 4.0, std: float = 0.2) -> GaussianMixture:
    """`modes` equal Gaussians on a circle. The errors of this and all other targets are GaussianMixture's."""
    if modes < 1:
        raise ValueError(f"modes must be >= 1, got {modes}")
    angle = torch.arange(modes) * (2 * math.pi / modes)
    return GaussianMixture(radius * torch.stack([angle.cos(), angle.sin()], 1), std)


def grid(modes: int = 25, spacing: float = 2.0, std: float = 0.15) -> GaussianMixture:
    """`modes` equal Gaussians on a square lattice centred on the origin. ValueError unless a square number."""
    side = math.isqrt(modes)
    if side * side != modes or side < 1:
        raise ValueError(f"modes must be a square number, got {modes}")
    axis = (torch.arange(side) - (side - 1) / 2) * spacing
    return GaussianMixture(torch.cartesian_prod(axis, axis), std)


def unbalanced(std: float = 0.3) -> GaussianMixture:
    """Four modes at distance 3 from the origin with weights .7 .1 .1 .1."""
    means = torch.tensor([[3.0, 0.0], [0.0, 3.0], [-3.0, 0.0], [0.0, -3.0]])
    return GaussianMixture(means, std, torch.tensor([0.7, 0.1, 0.1, 0.1]))


def off_centre(std: float = 0.3) -> GaussianMixture:
    """Four equal modes, one of them almost where particles start: the trap of mode seeking."""
    return GaussianMixture(torch.tensor([[0.5, 0.0], [4.0, 4.0], [-4.0, 4.0], [0.0, -5.0]]), std)


def moons(components: int = 48, radius: float = 2.0, std: float = 0.15) -> GaussianMixture:
    """Two interleaved half circles (the modes), each a dense chain of `components` Gaussians."""
    angle = torch.linspace(0, math.pi, components)
    arc = radius * torch.stack([angle.cos(), angle.sin()], 1)
    shift = torch.tensor([radius / 2, -radius / 4])
    groups = torch.arange(2).repeat_interleave(components)
    return GaussianMixture(torch.cat([arc - shift, -arc + shift]), std, groups=groups)


def checkerboard(squares: int = 4, per_side: int = 5, size: float = 2.0) -> GaussianMixture:
    """Every other field of a squares x squares board (the modes), each a dense lattice of per_side² Gaussians.

    size: of a field. ValueError for squares or per_side < 1.
    """
    if squares < 1 or per_side < 1:
        raise ValueError(f"squares and per_side must be >= 1, got {squares} and {per_side}")
    board = torch.cartesian_prod(torch.arange(squares), torch.arange(squares))
    board = board[board.sum(1) % 2 == 0]  # (M, 2)
    inside = (torch.arange(per_side) + 0.5) / per_side
    lattice = torch.cartesian_prod(inside, inside)  # (per_side², 2)
    means = (board[:, None] + lattice - squares / 2).reshape(-1, 2) * size
    groups = torch.arange(len(board)).repeat_interleave(per_side**2)
    return GaussianMixture(means, 0.5 * size / per_side, groups=groups)


def spiral(components: int = 96, turns: float = 2.0, radius: float = 4.0, std: float = 0.12) -> GaussianMixture:
    """A spiral of equal mass per length, cut into 8 arcs as modes."""
    share = ((torch.arange(components) + 0.5) / components).sqrt()  # equal arc length, nearly
    angle = 2 * math.pi * turns * share
    means = radius * share[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return GaussianMixture(means, std, groups=torch.arange(components) * 8 // components)


def random_mixture(seed: int) -> GaussianMixture:
    """A target nobody chose: 3 to 7 modes, weights unequal, spreads unequal, no two closer than 3 of the larger's
    std.

    Number uniform; means uniform in [-5, 5]², redrawn until every pair is at least 2.5 apart; std uniform in .15 ...
    .5; weights Dirichlet(2), redrawn until none is below .03 (fewer than 8 of 256 particles).
    """
    g = torch.Generator().manual_seed(seed)
    modes = int(torch.randint(3, 8, (), generator=g))
    while True:
        means = 10 * torch.rand(modes, 2, generator=g) - 5
        if float(torch.pdist(means).min()) >= 2.5:
            break
    std = 0.15 + 0.35 * torch.rand(modes, generator=g)
    while True:
        weights = -torch.rand(2, modes, generator=g).log().sum(0)  # Gamma(2) each
        weights = weights / weights.sum()
        if float(weights.min()) >= 0.03:
            return GaussianMixture(means, std, weights)


TARGETS: tuple[Callable[[], GaussianMixture], ...] = (
    ring,
    grid,
    unbalanced,
    off_centre,
    moons,
    checkerboard,
    spiral,
)
