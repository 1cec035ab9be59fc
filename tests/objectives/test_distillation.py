"""SDS, the surrogate loss, the levels and the loop."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jsdsd.objectives import JSD, SDS, Anneal, Ensemble, ReverseKL, Schedule, UniformTime, distill, surrogate_loss

SCHEDULE = Schedule.scaled_linear()


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 10**6), st.integers(0, 999))
def test_sds_equals_its_three_textbook_forms(random_denoiser: type, seed: int, t: int) -> None:
    denoiser, x0, eps = random_denoiser(seed), gaussian(3, 2, 2, seed=seed), gaussian(3, 2, 2, seed=seed + 1)
    step = SDS().gradient(denoiser, x0, t, noise=eps)
    alpha, sigma = SCHEDULE.levels(t, x0)
    eps_hat = denoiser.predict_eps(alpha * x0 + sigma * eps, t)
    noise_form = eps_hat - eps  # DreamFusion
    target_form = (alpha / sigma) * (x0 - (alpha * x0 + sigma * eps - sigma * eps_hat) / alpha)  # pull to x0_hat
    score_form = sigma * (-eps / sigma - -eps_hat / sigma)  # sigma (s_q - s_p), s_q = -eps/sigma of a lone particle
    scale = 1 + float(eps_hat.abs().max())
    assert torch.equal(step.grad, noise_form)
    assert torch.allclose(step.grad, target_form, atol=1e-12 * scale)
    assert torch.allclose(step.grad, score_form, atol=1e-12 * scale)
    assert torch.allclose((alpha / sigma) * (x0 - step.targets[0]), step.grad, atol=1e-12 * scale)


def test_sds_expected_gradient_is_the_gradient_of_reverse_kl(gaussian_denoiser: type) -> None:
    """KL(N(alpha x, sigma²) || N(alpha m, v)), v = alpha² std² + sigma²: d/dx = alpha² (x - m)/v, in
    eps-units times sigma/alpha.
    """
    denoiser, t = gaussian_denoiser(mean=1.0, std=0.5), 300
    x = torch.tensor([[-0.7]], dtype=torch.float64, requires_grad=True)
    alpha, sigma = (torch.tensor(level, dtype=torch.float64) for level in SCHEDULE.levels(t, x))
    q = torch.distributions.Normal(alpha * x, sigma)
    p = torch.distributions.Normal(alpha * 1.0, (alpha**2 * 0.25 + sigma**2) ** 0.5)
    (kl_grad,) = torch.autograd.grad(torch.distributions.kl_divergence(q, p).sum(), x)
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)  # exact: the gradient is linear in the noise
    grads = SDS().gradient(denoiser, x.detach().expand(8, 1), t, noise=torch.from_numpy(nodes)[:, None]).grad
    mean = float((grads[:, 0] * torch.from_numpy(weights)).sum() / weights.sum())
    assert mean == pytest.approx(float(kl_grad * sigma / alpha), abs=1e-12)


def test_same_seed_same_bytes_and_x0_stays_out_of_the_graph(random_denoiser: type) -> None:
    x0 = gaussian(4, 2).requires_grad_()
    a, b, c = (SDS().gradient(random_denoiser(0), x0, 500, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a.grad, b.grad) and not torch.equal(a.grad, c.grad)
    assert not any(tensor.requires_grad for tensor in (a.grad, a.x_t, a.eps_hat, a.eps_ref, *a.targets))


@given(st.integers(0, 10**6))
def test_surrogate_loss_has_exactly_the_gradient_asked_for(seed: int) -> None:
    x0, grad = gaussian(2, 3, seed=seed).requires_grad_(), gaussian(2, 3, seed=seed + 1)
    (got,) = torch.autograd.grad(surrogate_loss(x0, grad), x0)
    assert torch.equal(got, grad)


def test_surrogate_loss_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match="shape"):
        surrogate_loss(torch.zeros(2, 3), torch.zeros(2, 1))


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0, 1))
def test_anneal_spends_the_runs_real_length(steps: int, a: float, b: float) -> None:
    times = Anneal(start=max(a, b), end=min(a, b))
    levels = [times(step, steps, SCHEDULE) for step in range(steps)]
    assert levels[0] == round(999 * max(a, b)) and levels == sorted(levels, reverse=True)
    assert steps == 1 or levels[-1] == round(999 * min(a, b))
    largest = max((x - y for x, y in zip(levels, levels[1:], strict=False)), default=0)
    assert largest <= abs(a - b) * 999 / max(steps - 1, 1) + 1  # no jump: linear


def test_uniform_times_stay_inside_and_reach_both_ends() -> None:
    generator, times = torch.Generator().manual_seed(0), UniformTime(low=0.1, high=0.12)
    levels = {times(0, 1, SCHEDULE, generator) for _ in range(600)}
    assert levels == set(range(100, 121))


@pytest.mark.parametrize("bad", [lambda: Anneal(0.2, 0.9), lambda: Anneal(1.2, 0.0), lambda: UniformTime(-0.1, 0.5)])
def test_fractions_outside_are_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="fractions"):
        bad()  # type: ignore[operator]


def test_the_loop_finds_the_target_counts_and_can_be_left(gaussian_denoiser: type) -> None:
    denoiser, x = gaussian_denoiser(mean=1.0, std=0.1), torch.nn.Parameter(torch.zeros(64, 2))
    generator = torch.Generator().manual_seed(0)
    loop = distill(lambda step: x, denoiser, SDS(), torch.optim.Adam([x], 0.05), 200, generator=generator)
    records = list(loop)
    assert [r.step for r in records] == list(range(200)) and records[-1].t == 20
    assert sum(r.unet_calls for r in records) == denoiser.calls == 200
    assert all(r.seconds > 0 and r.grad_norm > 0 for r in records)
    assert float((x.detach() - 1).abs().mean()) < 0.1 and torch.equal(records[0].x0, torch.zeros(64, 2))
    endless = distill(lambda step: x, denoiser, SDS(), torch.optim.Adam([x], 0.05), 10**9)
    for record in endless:
        if record.step == 3:
            break
    assert denoiser.calls == 204


def test_the_penalty_is_part_of_the_loss(gaussian_denoiser: type) -> None:
    ends = []
    for strength in (0.0, 1e3):
        x = torch.nn.Parameter(torch.zeros(8, 2))
        for _ in distill(
            lambda step: x,  # noqa: B023
            gaussian_denoiser(mean=1.0),
            SDS(),
            torch.optim.Adam([x], 0.05),
            100,
            generator=torch.Generator().manual_seed(0),
            penalty=lambda step: strength * x.square().sum(),  # noqa: B023
        ):
            pass
        ends.append(float(x.detach().mean()))
    assert ends[0] > 0.8 and abs(ends[1]) < 0.1


def test_steps_below_one_are_refused(gaussian_denoiser: type) -> None:
    x = torch.nn.Parameter(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="steps"):
        next(distill(lambda step: x, gaussian_denoiser(), SDS(), torch.optim.SGD([x], 0.1), 0))


class Broken:
    guidance_scale, schedule = 1.0, SCHEDULE

    def predict_eps(self, x_t: torch.Tensor, t: object, guidance_scale: float | None = None) -> torch.Tensor:
        return x_t * float("nan")


def test_nan_stops_the_run_in_words_before_it_reaches_the_parameters() -> None:
    x = torch.nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(FloatingPointError, match=r"eps_hat is not finite at t = 979 \(4 of 4 .*cause"):
        list(distill(lambda step: x, Broken(), SDS(), torch.optim.SGD([x], 0.1), 5))
    assert x.isfinite().all()
    with pytest.raises(FloatingPointError, match="x0 is not finite at t = 5"):
        SDS().gradient(Broken(), torch.full((1, 2), float("inf")), 5)


@pytest.mark.parametrize(
    ("x0", "error"),
    [
        (torch.zeros(3), ValueError),
        (torch.zeros(0, 2), ValueError),
        (torch.zeros(2, 2).long(), TypeError),
        (1.0, ValueError),
    ],
)
def test_x0_that_is_no_batch_is_refused(x0: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="x0 must be"):
        SDS().gradient(Broken(), x0, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", [SDS(), JSD(), Ensemble(ReverseKL())], ids=repr)
def test_shapes_that_would_broadcast_in_silence_are_refused(random_denoiser: type, objective: object) -> None:
    with pytest.raises(ValueError, match="noise must have x0's shape"):
        objective.gradient(random_denoiser(0), torch.zeros(3, 2), 5, noise=torch.zeros(1, 2))  # type: ignore[attr-defined]

    class Lazy(random_denoiser):  # type: ignore[misc, valid-type]
        def predict_eps(self, x_t: torch.Tensor, t: object, guidance_scale: float | None = None) -> torch.Tensor:
            return x_t[:1]

    with pytest.raises(ValueError, match="noise of x_t's shape"):
        objective.gradient(Lazy(0), torch.zeros(3, 2), 5)  # type: ignore[attr-defined]


def test_the_core_fits_on_a_page() -> None:
    core = sum(len(inspect.getsource(part).splitlines()) for part in (SDS, surrogate_loss, distill))
    assert core <= 100
