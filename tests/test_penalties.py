"""Penalties are shares of the guidance's gradient: whatever scales that, the balance stays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jsdsd.objectives import Anneal, Schedule
from jsdsd.optimise import refuse_void
from jsdsd.penalties import as_share, present, solid, total_variation
from jsdsd.sdxl.recipe import LARGE, TOY, between


def gradients(factor: float, size: int) -> tuple[torch.Tensor, ...]:
    """Of `factor` times a guidance, and of both penalties, on pictures of `size` pixels that all say the same."""
    rgb = torch.full((2, size, size, 3), 0.5, requires_grad=True)
    opacity = torch.full((2, size, size), 0.3, requires_grad=True)
    rough = torch.tensor(2.0, requires_grad=True)
    seen, thick, uneven = as_share(rgb, opacity, rough)
    assert torch.equal(seen, rgb) and torch.equal(thick, opacity) and torch.equal(uneven, rough)
    guidance = (seen * torch.tensor([1.0, -3.0, 2.0])).sum() / size**2  # the VAE's pull is shared by the pixels
    (factor * guidance + 2 * solid(thick) + 5 * uneven).backward()
    return rgb.grad, opacity.grad, rough.grad  # type: ignore[return-value]


@given(st.floats(1e-3, 1e3), st.sampled_from([2, 4, 8]))
def test_the_balance_knows_neither_the_guidances_scale_nor_the_pixels(factor: float, size: int) -> None:
    rgb, opacity, rough = gradients(factor, size)
    torch.testing.assert_close(rgb[0, 0, 0], factor / size**2 * torch.tensor([1.0, -3.0, 2.0]))
    share = 3 * factor / size**2  # the largest channel
    torch.testing.assert_close(opacity, torch.full_like(opacity, 2 * (1 - 2 * 0.3) * share))
    torch.testing.assert_close(rough, torch.tensor(5 * share))


def test_total_variation_against_loops() -> None:
    field = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slow = 0.0
    for c in range(2):
        for z in range(2):
            for y in range(2):
                for x in range(2):
                    here = field[c, z, y, x]
                    square = (field[c, z + 1, y, x] - here) ** 2 + (field[c, z, y + 1, x] - here) ** 2
                    slow += float((square + (field[c, z, y, x + 1] - here) ** 2 + 1e-3).sqrt()) - 1e-3**0.5
    assert float(total_variation(field)) == pytest.approx(slow)
    assert float(total_variation(torch.full((3, 4, 4, 4), 0.7))) == pytest.approx(0, abs=1e-4)


def test_rates_rise_and_stay_for_toys_and_fall_to_a_tenth_for_large_models() -> None:
    rates = [[between(r.density_rates, x) for x in (0, 0.2, 0.4, 0.7, 1)] for r in (TOY, LARGE)]
    assert rates[0] == pytest.approx([0.1, 0.3, 0.5, 0.5, 0.5])
    assert rates[1] == pytest.approx([0.1, 0.082, 0.064, 0.037, 0.01])
    assert between(LARGE.colour_rates, 1) == pytest.approx(between(LARGE.colour_rates, 0) / 10)


def test_presence_is_least_in_an_empty_picture_and_flat_there() -> None:
    opacity = torch.tensor([0.0, 0.3, 1.0], requires_grad=True)
    present(opacity).backward()
    assert float(present(opacity).detach()) == pytest.approx(0.1 + 0.1**0.5 + 1.01**0.5)
    assert opacity.grad is not None and opacity.grad.tolist() == pytest.approx([0.0, 0.3 / 0.1**0.5, 1 / 1.01**0.5])


def test_quadratic_annealing_spends_half_of_the_steps_below_a_quarter() -> None:
    schedule, rule = Schedule.scaled_linear(), Anneal(power=2)
    levels = [rule(i, 101, schedule) for i in range(101)]
    assert levels[0] == round(0.98 * 999) and levels[100] == round(0.02 * 999)
    assert levels[50] == round((0.02 + 0.96 / 4) * 999) and levels == sorted(levels, reverse=True)
    for power in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="power must be positive"):
            Anneal(power=power)


def test_an_empty_scene_and_a_full_box_are_told_apart_and_refused() -> None:
    with pytest.raises(FloatingPointError, match="empty at step 3"):
        refuse_void(torch.zeros(2, 4, 4), 3, 100)
    full = torch.full((2, 4, 4), 0.95)
    refuse_void(full, 33, 100)  # fog, early
    with pytest.raises(FloatingPointError, match="fills its box at step 34"):
        refuse_void(full, 34, 100)
