"""Log-odds that are learned, by telling noised target samples from noised generated ones; and what tells good from bad.

A GAN's discriminator (Goodfellow et al. 2014, arXiv 1406.2661, Prop. 1; not re-read), trained online on the particles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .diffusion import Schedule, Time, randn_like
from .divergence import Estimate
from .log_odds import Situation, particle_mixture


@dataclass(eq=False)
class LearnedLogOdds:
    """A small network on (x_t, t), trained online by telling noised target samples from noised generated ones.

    D = sigmoid(logit), and its best logit is log p_t/q_t. Of that ratio half is known: q_t is the mixture of our own
    particles. So by default the network h learns log p_t alone, as a correction of a Gaussian of the target's size:

        logit = h(x_t, t) + log N(x_t; 0, (alpha² m + sigma²) I) - log q_t(x_t),    m = mean square of target samples

    (noise-contrastive estimation, Gutmann & Hyvärinen 2010; not re-read). No small network can draw the N narrow
    kernels of q_t at low noise, and the target does not move during a run, as the particles do. Its modes are narrow
    there too: so h also sees sines and cosines of x_t/sqrt(m) times 1, 2, 4 and 8 (Fourier features, Tancik et al.
    2020; not re-read), which cut its error at low noise to less than half.

    Each call takes `updates` steps of binary cross-entropy on fresh samples, spread over *all* levels, for a network
    trained only at the level asked for forgets the others. The rate falls as lr/sqrt(1 + n/300) with the number n of
    updates, and the answer comes from the average of the weights over about the last tenth of them: what is left of
    the noise of training would push the same particles the same way for many steps. The network is carried from call
    to call: use one object per run.

    sample_target(n, generator) -> (n, ...) clean target samples; None = the denoiser's own `sample`. known_q: False =
    the network learns the whole ratio from (x_t, t) as they are, a GAN's discriminator: blurred, but of use in high
    dimension, where log q_t spans hundreds of nats. updates: per call; nearly all of the cost. warmup: further updates
    before the first answer. batch: samples of each side per update. width: of the 3 hidden layers. lr: Adam's first.
    bound: the answer is clamped to ±bound nats (None = not), which changes the divergence where it bites. seed: of the
    initial weights. ValueError for counts < 1 (warmup < 0), lr or bound <= 0, target samples not shaped like the
    particles, or a run with other dimensions.
    """

    sample_target: Callable[[int, torch.Generator | None], Tensor] | None = None
    known_q: bool = True
    updates: int = 2
    warmup: int = 200
    batch: int = 256
    width: int = 64
    lr: float = 1e-2
    bound: float | None = None
    seed: int = 0
    net: nn.Module | None = field(default=None, init=False, repr=False)
    _size: float = field(default=1.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.updates, self.batch, self.width) < 1 or self.warmup < 0 or not self.lr > 0:
            raise ValueError("updates, batch and width must be >= 1, warmup >= 0 and lr > 0")
        if self.bound is not None and not self.bound > 0:
            raise ValueError(f"bound must be > 0 nats, or None for no clamp, got {self.bound}")

    def log_ratio(self, x_t: Tensor, t: Time, situation: Situation) -> Tensor:
        """(B,) at x_t (B, ...), after the online updates."""
        for _ in range(self.updates + (self.warmup if self.net is None else 0)):
            self.update(None, situation)
        logits = self.logits(x_t, t, situation.schedule)
        if self.known_q:
            logits = logits - situation.log_q  # (B,) log p_t - log q_t
        return logits if self.bound is None else logits.clamp(-self.bound, self.bound)

    @torch.no_grad()
    def logits(self, x_t: Tensor, t: Time, schedule: Schedule) -> Tensor:
        """The averaged network as it is, (B,) nats at x_t (B, ...), level t: log p_t/q_t, or with known_q log p_t."""
        return self._call(x_t, t, schedule, averaged=True)

    def update(self, t: Time | None, situation: Situation) -> float:
        """One step of binary cross-entropy at level(s) t, None = all of them; the loss (nats). ValueError without
        target samples.
        """
        sample = self.sample_target or getattr(situation.denoiser, "sample", None)
        if sample is None:
            raise ValueError("LearnedLogOdds needs target samples: give sample_target(n, generator) -> (n, ...)")
        generator, schedule, particles, n = situation.generator, situation.schedule, situation.x0, self.batch
        device = "cpu" if generator is None else generator.device
        pick = torch.randint(len(particles), (n,), generator=generator, device=device)
        fake, real = particles[pick.to(particles.device)], sample(n, generator).to(particles)
        if real.shape != fake.shape:
            raise ValueError(f"target samples must have shape {tuple(fake.shape)}, got {tuple(real.shape)}")
        if self.net is None:
            self._size = float(real.square().mean()) or 1.0  # m
        levels = torch.arange(len(schedule)) if t is None else torch.as_tensor(t).flatten()
        level = levels.to(device)[torch.randint(len(levels), (2 * n,), generator=generator, device=device)]  # (2n,)
        x0 = torch.cat([real, fake])
        x_t = schedule.add_noise(x0, randn_like(x0, generator), level)
        log_q = particle_mixture(schedule, particles, x_t, level).log_prob if self.known_q else 0.0
        with torch.enable_grad():
            logits = self._call(x_t, level, schedule) - log_q
            loss = (F.softplus(-logits[:n]).mean() + F.softplus(logits[n:]).mean()) / 2  # -log D, -log(1 - D)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        assert self.net is not None  # `_call` made it
        self._rate.step()
        self._average.update_parameters(self.net)
        return float(loss.detach())

    def _call(self, x_t: Tensor, t: Time, schedule: Schedule, averaged: bool = False) -> Tensor:
        """`logits` with a graph; the network is made at the first call."""
        flat = x_t.flatten(1)
        if self.net is None:
            self._make_network(flat)
        assert self.net is not None
        if self._dim != flat.shape[1]:
            raise ValueError(
                f"trained on other dimensions than {flat.shape[1]}: take a new LearnedLogOdds for each run"
            )
        alpha, sigma = (torch.as_tensor(v).to(flat).expand(len(flat)) for v in (schedule.alpha(t), schedule.sigma(t)))
        seen = [flat, torch.stack([alpha, sigma, (alpha / sigma).log() / 3], 1)]  # / 3: of order 1, like the others
        if self.known_q:
            waves = torch.cat([flat * (k / self._size**0.5) for k in (1, 2, 4, 8)], 1)  # (B, 4d)
            seen += [waves.sin(), waves.cos()]
        h = (self._average if averaged else self.net)(torch.cat(seen, 1))[:, 0]
        if not self.known_q:
            return h
        variance = alpha**2 * self._size + sigma**2  # (B,)
        return h - flat.square().sum(1) / (2 * variance) - flat.shape[1] / 2 * (2 * math.pi * variance).log()

    def state(self) -> dict[str, Tensor]:
        """All that it has learned, for a checkpoint; nothing before the first call."""
        if self.net is None:
            return {}
        found = {"size": torch.tensor(self._size, dtype=torch.float64), "dim": torch.tensor(self._dim)}
        found["count"] = torch.tensor(self._rate.last_epoch)
        parts: dict[str, nn.Module] = {"net": self.net, "average": self._average}
        found |= {f"{name}.{key}": x for name, part in parts.items() for key, x in part.state_dict().items()}
        adam = self._optimizer.state_dict()["state"]
        return found | {f"adam.{i}.{key}": x for i, entries in adam.items() for key, x in entries.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take `state` up; on the CPU it goes on to the same bytes."""
        if not state:
            return
        names = ["net.", "average.", *(f"adam.{i}." for i in range(8))]
        under: dict[str, dict[str, Tensor]] = {name: {} for name in names}
        for name, x in state.items():
            for prefix in under:
                if name.startswith(prefix):
                    under[prefix][name[len(prefix) :]] = x.clone()
        self._size = float(state["size"])
        self._make_network(next(iter(under["net."].values())).new_zeros(1, int(state["dim"])))
        assert self.net is not None
        self.net.load_state_dict(under["net."])
        self._average.load_state_dict(under["average."])
        moments = {i: under[f"adam.{i}."] for i in range(8)}  # four layers, a weight and a bias each
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
        self._rate.last_epoch = int(state["count"])
        for group, rate in zip(self._optimizer.param_groups, self._rate.base_lrs, strict=True):
            group["lr"] = rate * self._rate.lr_lambdas[0](self._rate.last_epoch)

    def _make_network(self, like: Tensor) -> None:
        self._dim = like.shape[1]
        with torch.random.fork_rng(devices=[]):  # leaves the global stream untouched
            torch.manual_seed(self.seed)
            sizes = [self._dim * (9 if self.known_q else 1) + 3, self.width, self.width, self.width, 1]
            layers = [m for a, b in zip(sizes, sizes[1:], strict=False) for m in (nn.Linear(a, b), nn.SiLU())]
            self.net = nn.Sequential(*layers[:-1]).to(like)
        self._optimizer = torch.optim.Adam(self.net.parameters(), self.lr)
        self._rate = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda n: (1 + n / 300) ** -0.5)
        self._average = AveragedModel(self.net, multi_avg_fn=_recent_average)


Tensors = tuple[Tensor, ...] | list[Tensor]


def _recent_average(average: Tensors, new: Tensors, count: Tensor | int) -> None:
    """average += (new - average)/(1 + count/10): a mean over about the last tenth of `count` updates."""
    torch._foreach_lerp_(average, new, 1 / (1 + float(count) / 10))


def _logits(on_target: Tensor, on_generated: Tensor) -> tuple[Tensor, Tensor]:
    for x in (on_target, on_generated):
        if x.ndim != 1 or len(x) < 2 or x.isnan().any():
            raise ValueError(f"logits must be (N,) with N >= 2 of each side and no NaN, got shape {tuple(x.shape)}")
    return on_target.double(), on_generated.double()


def jsd_lower_bound(on_target: Tensor, on_generated: Tensor) -> Estimate:
    """V(D)/2 + log 2 <= JSD, V(D) = E_p[log D] + E_q[log(1-D)], from any logits (N,) at samples of p and (M,) of q.

    In expectation a lower bound for every D that did not see these samples, and JSD itself for D* (Goodfellow et al.
    2014, Theorem 1; not re-read). Nats. ValueError for other shapes, fewer than 2 of a side, or NaN.
    """
    on_target, on_generated = _logits(on_target, on_generated)
    real, fake = -F.softplus(-on_target), -F.softplus(on_generated)  # log D, log(1-D)
    variance = real.var() / len(real) + fake.var() / len(fake)
    return Estimate(float(real.mean() + fake.mean()) / 2 + math.log(2), float(variance.sqrt()) / 2)


def calibration_curve(on_target: Tensor, on_generated: Tensor, bins: int = 10) -> Tensor:
    """(bins, 3): mean D, observed share of target samples (even prior odds), share of samples in the bin; NaN rows
    where a bin is empty. A calibrated discriminator has the first two equal. Logits (N,) at samples of p, (M,) of q;
    all numbers 0 ... 1. ValueError for other shapes, fewer than 2 of a side, NaN, or bins < 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be >= 1, got {bins}")
    logits = torch.cat(_logits(on_target, on_generated))
    share = torch.cat([torch.full_like(x, 0.5 / len(x), dtype=torch.float64) for x in (on_target, on_generated)])
    is_target = torch.cat([torch.ones_like(on_target), torch.zeros_like(on_generated)]).double()
    d = torch.sigmoid(logits)
    which = (d * bins).long().clamp(max=bins - 1)
    total = torch.zeros(bins, dtype=torch.float64).index_add(0, which, share)
    mean_d = torch.zeros_like(total).index_add(0, which, share * d) / total
    observed = torch.zeros_like(total).index_add(0, which, share * is_target) / total
    return torch.stack([mean_d, observed, total], 1)
