"""Variants of the problem sets, for another year or another group: what is asked differs by a convention.

A variant asks for what the checker otherwise knows as a mistake with a name: KL in bits, the transmittance for the
opacity, the other convention of guidance.  So every variant has a tested reference, and last year's solution is
recognised: the answer to the question as handed out becomes a mistake.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .problem import Mistake, Problem, ProblemSet


@dataclass(frozen=True)
class Variant:
    """problem: whose; mistake: its twin that is now right; edits: of the file's statements, old and new text."""

    problem: str
    mistake: str
    edits: tuple[tuple[str, str], ...]


VARIANTS = (
    Variant("kl", "log base 2 instead of nats", (
        ("KL(p‖q) = sum_k p_k log(p_k / q_k), in nats.", "KL(p‖q) = sum_k p_k log2(p_k / q_k), in bits."),)),
    Variant("jensen_shannon", "square root taken", (
        ("JS(p, q) = ½ KL(p‖m) + ½ KL(q‖m), m = (p + q) / 2, in nats.",
         "The Jensen-Shannon distance: the square root of ½ KL(p‖m) + ½ KL(q‖m), m = (p + q) / 2, KL in nats."),
        ("in 0 ... log 2.", "in 0 ... sqrt(log 2)."))),
    Variant("weight", "r for r squared", (
        ("w_f(r) = r² f''(r) at r = exp(log_ratio): what the divergence of f puts on a gradient.",
         "r f''(r) at r = exp(log_ratio): w_f(r) / r, the weight where the average runs over samples of p."),
        ("has weight 1 everywhere.", "has 1/r."))),
    Variant("discriminator", "D and 1 - D swapped", (
        ("D = p / (p + q): the probability that a point, from p or q with even odds, is the target's.",
         "1 - D = q / (p + q): the probability that a point, from p or q with even odds, is a generated one."),)),
    Variant("jsd_bound", "missing factor 1/2", (("V(D)/2 + log 2 <= JSD, with", "V(D) + log 4 <= 2 JSD, with"),)),
    Variant("fit_mean", "normalised weights", (
        ("grad = average over the samples of w_f(r) (s_q - s_p) at x,",
         "grad = average over the samples of w (s_q - s_p) at x, w being w_f(r) divided by its mean over the samples,"),
    )),
    Variant("add_noise", "t as a fraction", (
        ("x_t = alpha x0 + sigma eps, with alpha = sqrt(alphas_cumprod[t]) and alpha² + sigma² = 1.",
         "x_t = (1 - t/T) x0 + (t/T) eps: the straight path of flow matching, T = len(alphas_cumprod)."),)),
    Variant("guided_x0", "guidance scale off by one", (
        ("eps_hat = eps_0 + s (eps_y - eps_0).", "eps_hat = eps_y + s (eps_y - eps_0)."),
        ("a number, 1 = no guidance.", "a number, 0 = no guidance."))),
    Variant("mixture_eps", "score instead of eps", (
        ("The exact denoiser of a mixture of Gaussians", "The score of a noised mixture of Gaussians"),
        ("N(means_k, std_k² I): eps_hat = -sigma score.", "N(means_k, std_k² I), not eps_hat."))),
    Variant("sds_loss", "weighed by sigma squared", (
        ("is that of SDS, (eps_hat - eps) / B:", "is that of SDS, sigma² (eps_hat - eps) / B:"),
        ("and the time weight is 1.", "and the time weight is sigma²."))),
    Variant("jsd_gradient", "divided by 1 + k", (
        ("(alpha/sigma) [(x0 - x1) + k (x0 - x2)], two", "(alpha/sigma) [(x0 - x1) + k (x0 - x2)] / (1 + k), two"),)),
    Variant("ensemble_gradient", "weights divided by their mean", (
        ("w_f(r) (eps_hat - eps_q) at x_t: score distillation of N particles that know of each other.",
         "w (eps_hat - eps_q) at x_t, w being w_f(r) divided by its mean over the N particles."),
        ("descent on the particles with Problem 6,", "descent on the particles with w_f(r) (eps_hat - eps_q),"))),
    Variant("distill_particles", "mean over the ensemble", (
        ("x <- x - rate * gradient, once", "x <- x - rate * gradient / N, once"),)),
    Variant("camera_position", "azimuth counted from +X", (
        ("Azimuth 0 sees the front of the object (the camera is on the -Y side), azimuth 90 has it on the +X side.",
         "Azimuth as in a textbook: at 0 the camera is on the +X side, at 90 on the +Y side."),)),
    Variant("opacity", "transmittance for opacity", (
        ("1 - exp(-density length): the share of light that a piece of fog takes away.",
         "exp(-density length): the share of light that comes through a piece of fog."),)),
    Variant("composite", "wrong order of compositing", (
        ("and opacity = 1 - T_end, front to back.", "and opacity = 1 - T_end; sample 0 is the farthest one."),
        ("T_k = (1 - opacity_0) (1 - opacity_1) ... (1 - opacity_{k-1}), so T_0 = 1;",
         "T_k = (1 - opacity_{k+1}) (1 - opacity_{k+2}) ... (1 - opacity_{K-1}), so T_{K-1} = 1;"))),
    Variant("trilinear", "nodes inside the cells", (
        ("node i of an axis is at -1 + 2 i / (R - 1).",
         "node i of an axis is at -1 + (2 i + 1) / R, and outside the outer nodes their values go on."),)),
    Variant("march", "samples at the beginning of their parts", (
        ("each sampled in its middle, composited.", "each sampled at its beginning, composited."),)),
    Variant("distill_views", "sum instead of mean over the views", (
        ("as the mean over the B views;", "as the sum over the B views;"),)),
)  # fmt: skip

UNCHANGED = "the question as it was"


def chosen(variant: int) -> set[str]:
    """The problems that are changed in a variant: none in variant 0, about half of them in every other."""
    if variant == 0:
        return set()
    rng = random.Random(variant)
    picked = {v.problem for v in VARIANTS if rng.random() < 0.5}
    return picked or {rng.choice(VARIANTS).problem}


def varied(problem_set: ProblemSet, variant: int) -> ProblemSet:
    """The set with the references that the variant asks for."""
    return replace(problem_set, problems=tuple(_varied(p, variant) for p in problem_set.problems))


def _varied(problem: Problem, variant: int) -> Problem:
    if problem.name not in chosen(variant):
        return problem
    name = next(v.mistake for v in VARIANTS if v.problem == problem.name)
    twin = next(m for m in problem.mistakes if m.name == name)
    usual = Mistake(UNCHANGED, problem.reference, "Right for another variant of this problem: read what yours asks.")
    others = tuple(usual if m is twin else m for m in problem.mistakes)
    return replace(problem, reference=twin.answer, mistakes=others)


def statement(text: str, variant: int) -> str:
    """A file of exercises with the statements that the variant asks for.  ValueError: a text to change is not there."""
    for v in VARIANTS:
        if v.problem in chosen(variant) and f"\ndef {v.problem}(" in text:
            for old, new in v.edits:
                if text.count(old) != 1:
                    raise ValueError(f"{v.problem}: {old!r} does not stand in the file once")
                text = text.replace(old, new)
    return text
