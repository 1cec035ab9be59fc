"""Problem set 3: a camera, a volume renderer, and a scene that is distilled through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from jsdsd.objectives.distillation import SDS, surrogate_loss
from jsdsd.scene.cameras import Camera, orbit
from jsdsd.scene.renderer import render
from jsdsd.scene.voxels import VoxelGrid

from .compositing import CAMERA_POSITION, COMPOSITE, F64, OPACITY, compose, rand
from .inside.given import PictureDenoiser
from .problem import Case, Mistake, Problem, ProblemSet


# ------------------------------------------------------------------------------------------------------- 4: trilinear
def places(g: torch.Generator) -> list[Case]:
    def case(label: str, size: int, points: Tensor) -> Case:
        return Case(label, {"field": rand(g, 4, size, size, size), "points": points})

    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=F64)] * 3)
    return [case("6³ nodes", 6, 2 * rand(g, 20, 3) - 1), case("2³ nodes", 2, 2 * rand(g, 5, 3) - 1),
            case("the corners of the box", 4, corners)]  # fmt: skip


def _sample(field: Tensor, points: Tensor, align: bool = True, mode: str = "bilinear") -> Tensor:
    """(C, P) from PyTorch's own 3D interpolation; its coordinates are x, y, z, as ours."""
    at = points.view(1, -1, 1, 1, 3)
    return F.grid_sample(field[None], at, mode=mode, padding_mode="border", align_corners=align)[0, :, :, 0, 0]


def _shares_swapped(field: Tensor, points: Tensor) -> Tensor:
    cells = field.shape[-1] - 1
    where = (points + 1) / 2 * cells
    base = where.floor().clamp(max=cells - 1)
    return _sample(field, (base + 1 - (where - base)) / cells * 2 - 1)


def _floored(field: Tensor, points: Tensor, shift: float = 0.0) -> Tensor:
    cells = field.shape[-1] - 1
    base = ((points + 1) / 2 * cells).floor().clamp(max=cells - 1)
    return (base + shift) / cells * 2 - 1


def _middle(field: Tensor, points: Tensor) -> Tensor:
    return _floored(field, points, 0.5)


TRILINEAR = Problem(
    "trilinear", 5, _sample, places, outputs=("values (C, P)",), differentiate=("field",),
    mistakes=(
        Mistake("x and z swapped", lambda f, x: _sample(f, x.flip(-1)),
                "The field was indexed [channel, x, y, z]. Grids are indexed [channel, z, y, x]."),
        Mistake("nodes inside the cells", lambda f, x: _sample(f, x, align=False),
                "This is align_corners=False, with the outer nodes half a cell inside. Node i stands at -1 + 2 i / "
                "(R - 1): "
                "the first and the last on the faces of the box."),
        Mistake("R for R - 1", lambda f, x: _sample(f, (x + 1) * f.shape[-1] / (f.shape[-1] - 1) - 1),
                "R nodes have R - 1 spacings between them: the index of x is (x + 1)/2 * (R - 1)."),
        Mistake("nearest node only", lambda f, x: _sample(f, x, mode="nearest"),
                "The value jumps from node to node. Mix the eight corners of the cell."),
        Mistake("shares swapped", _shares_swapped,
                "The share of a corner is 1 minus the distance to it: the nearer corner counts more."),
        Mistake("points taken in [0, 1]", lambda f, x: _sample(f, (2 * x - 1).clamp(-1, 1)),
                "The box is [-1, 1]³: move the points by (x + 1)/2 before they become indices."),
        Mistake("x and y swapped", lambda f, x: _sample(f, x[:, [1, 0, 2]]),
                "The field was indexed [channel, z, x, y]. Grids are indexed [channel, z, y, x]."),
        Mistake("lower corner only", lambda f, x: _sample(f, _floored(f, x)),
                "The value of the corner below was taken. Mix all eight corners of the cell."),
        Mistake("plain mean of the corners", lambda f, x: _sample(f, _middle(f, x)),
                "The corners were averaged alike: the nearer ones count more."),
        Mistake("y and z swapped", lambda f, x: _sample(f, x[:, [0, 2, 1]]),
                "The field was indexed [channel, y, z, x]. Grids are indexed [channel, z, y, x]."),
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------- 5: march rays
def ray_bundles(g: torch.Generator) -> list[Case]:
    cases = []
    for label, size, samples, thick in (("thin fog", 4, 7, 1.0), ("thick fog", 5, 16, 12.0), ("one sample", 3, 1, 3.0)):
        origin, direction = 0.6 * rand(g, 6, 3) - 0.3, F.normalize(rand(g, 6, 3) - 0.5, dim=-1)
        near, length = (
            0.05 + 0.2 * rand(g, 6),
            0.2 + 0.2 * rand(g, 6),
        )  # inside the box, even if counted from the origin
        arguments: dict[str, Any] = {"density": thick * rand(g, size, size, size)}
        arguments["colour"] = rand(g, 3, size, size, size)
        arguments |= {"origin": origin, "direction": direction}
        arguments |= {"near": near, "far": near + length, "samples": samples, "background": rand(g, 3)}
        cases.append(Case(f"{label}, {samples} samples", arguments))
    return cases


def _march(
    density: Tensor, colour: Tensor, origin: Tensor, direction: Tensor, near: Tensor, far: Tensor, samples: int,
    background: Tensor, *, offset: float = 0.5, from_origin: bool = False, swapped: bool = False,
    whole: bool = False, ends: bool = False, to_far: bool = False,
    as_opacity: Callable[[Tensor, Tensor], Tensor] = lambda density, length: 1 - torch.exp(-density * length),
    composite: Callable[..., tuple[Tensor, Tensor]] = compose,
) -> Tensor:  # fmt: skip
    """(P, 3): rays through a density and a colour field; the keywords are the mistakes' switches."""
    length = (far if to_far else far - near) / samples  # (P,)
    k = torch.arange(samples, dtype=F64)[:, None] + offset  # (K, 1)
    t = k * length + (0.0 if from_origin else near)  # (K, P)
    if ends:
        t = near + torch.linspace(0, 1, samples, dtype=F64)[:, None] * (far - near)
    points = (origin + t[..., None] * direction).view(-1, 3)  # (K P, 3)
    values = _sample(torch.cat([density[None], colour]), points.flip(-1) if swapped else points)
    values = values.T.view(samples, -1, 4)  # (K, P, 4)
    return composite(as_opacity(values[..., 0], far - near if whole else length), values[..., 1:], background)[0]


MARCH = Problem(
    "march", 6, _march, ray_bundles, outputs=("rgb (P, 3)",), differentiate=("density", "colour"),
    mistakes=(
        Mistake("opacity without transmittance", lambda *a: _march(*a, composite=lambda *b: compose(*b, visible=False)),
                "Every sample was added with its own opacity. What stands in front hides it: multiply by T_k."),
        Mistake("wrong order of compositing", lambda *a: _march(*a, composite=lambda *b: compose(*b, reverse=True)),
                "The far samples hide the near ones. Composite front to back: sample 0 is the one next to the camera."),
        Mistake("own opacity in the transmittance",
                lambda *a: _march(*a, composite=lambda *b: compose(*b, inclusive=True)),
                "T_k is what comes through *before* sample k. Here a sample also hides itself."),
        Mistake("background dropped", lambda *a: _march(*a, composite=lambda *b: compose(*b, behind=torch.zeros_like)),
                "What comes through the whole fog shows the background: add T_end * background."),
        Mistake("samples at the beginning of their parts", lambda *a: _march(*a, offset=0.0),
                "Each of the K parts is represented by its middle, near + (k + 1/2) length."),
        Mistake("samples at the end of their parts", lambda *a: _march(*a, offset=1.0),
                "Each of the K parts is represented by its middle, near + (k + 1/2) length."),
        Mistake("samples counted from the camera", lambda *a: _march(*a, from_origin=True),
                "near was forgotten: the samples lie between near and far, not between 0 and far - near."),
        Mistake("length of a part forgotten", lambda *a: _march(*a, as_opacity=lambda d, _: 1 - torch.exp(-d)),
                "The opacity does not depend on the number of samples. It is 1 - exp(-density * length), with "
                "length = (far - near) / K."),
        Mistake("density as opacity", lambda *a: _march(*a, as_opacity=lambda d, length: d * length),
                "density * length is the opacity of very thin fog only, and exceeds 1 in thick fog: 1 - exp(-density "
                "* length)."),
        Mistake("transmittance for opacity", lambda *a: _march(*a, as_opacity=lambda d, length: torch.exp(-d * length)),
                "exp(-density * length) is what comes through. The opacity is 1 minus it."),
        Mistake("x and z swapped", lambda *a: _march(*a, swapped=True),
                "The fields were indexed [x, y, z]. Grids are indexed [channel, z, y, x]."),
        Mistake("background not dimmed",
                lambda *a: _march(*a, composite=lambda *b: compose(*b, behind=torch.ones_like)),
                "The background was added in full. Only T_end of it comes through."),
        Mistake("length of the whole ray", lambda *a: _march(*a, whole=True),
                "Each part is (far - near) / K long; the whole ray was taken for each."),
        Mistake("samples from end to end", lambda *a: _march(*a, ends=True),
                "`linspace(near, far, K)` puts samples on both ends. They stand in the middles of K equal parts."),
        Mistake("direction backwards", lambda d, c, o, v, *a: _march(d, c, o, -v, *a),
                "Points on the ray are origin + t direction, with a plus."),
        Mistake("origin forgotten", lambda d, c, o, *a: _march(d, c, 0 * o, *a),
                "Points on the ray are origin + t direction; here every ray starts in the middle of the box."),
        Mistake("far taken for the length", lambda *a: _march(*a, to_far=True),
                "The parts divide far - near, not far."),
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------- 6: the project, text to 3D
def scenes(g: torch.Generator) -> list[Case]:
    cases = []
    for views, times, size in ((2, [800, 500, 200], 6), (3, [600, 300], 5)):
        camera = orbit([360 * i / views + 20 for i in range(views)], 15.0, dtype=F64)
        arguments: dict[str, Any] = {"grid": VoxelGrid.blob((4, 7), dtype=F64), "camera": camera}
        arguments["denoiser"] = PictureDenoiser(rand(g, views, size, size, 3))
        arguments["noises"] = torch.randn(len(times), views, size, size, 3, generator=g, dtype=F64)
        arguments |= {"times": times, "rate": 2.0, "background": 0.3}
        cases.append(Case(f"{views} views, {len(times)} steps", arguments))
    return cases


def _views(
    grid: VoxelGrid, camera: Camera, denoiser: PictureDenoiser, noises: Tensor, times: list[int], rate: float,
    background: float, *, attached: bool = False, keep: bool = False, density_only: bool = False,
    eps_dropped: bool = False, sign: float = 1.0, colour_only: bool = False, noised: bool = True,
    with_alpha: bool = False, optimiser: type[torch.optim.Optimizer] = torch.optim.SGD,
) -> Tensor:  # fmt: skip
    """The logits (4, R, R, R) after gradient descent; the keywords are the mistakes' switches."""
    chosen = grid.density_levels if density_only else grid.colour_levels if colour_only else grid.parameters()
    optimizer = optimiser(chosen, lr=rate)  # type: ignore[call-arg]
    for noise, t in zip(noises, times, strict=True):
        x0 = render(grid, camera, noise.shape[1], background).rgb  # (B, H, W, 3)
        if attached:
            grad = denoiser.predict_eps(denoiser.schedule.add_noise(x0, noise, t), t) - noise
            loss = (x0 * grad).sum()
        else:
            grad = SDS().gradient(denoiser, x0, t, noise=noise).grad
            if not noised:
                grad = denoiser.predict_eps(x0.detach(), t) - noise
            if with_alpha:
                grad = grad * denoiser.schedule.alpha(t)
            loss = surrogate_loss(x0, grad + noise if eps_dropped else grad)
        if not keep:
            optimizer.zero_grad()
        (sign * loss / len(x0)).backward()
        optimizer.step()
    return grid.logits().detach()


DISTILL_VIEWS = Problem(
    "distill_views", 6, _views, scenes, outputs=("logits (4, R, R, R)",), detached=True,
    mistakes=(
        Mistake("missing minus sign", lambda *a: _views(*a, sign=-1.0),
                "The scene moves away from the target: the gradient is eps_hat - eps, and descent goes against it."),
        Mistake("gradients pile up", lambda *a: _views(*a, keep=True),
                "The gradients of earlier steps were added: call optimizer.zero_grad() in every step."),
        Mistake("missing detach", lambda *a: _views(*a, attached=True),
                "The gradient also flows through the denoiser. Predict under torch.no_grad(), or detach eps_hat - "
                "eps."),
        Mistake("eps dropped", lambda *a: _views(*a, eps_dropped=True),
                "The gradient is eps_hat alone. Subtract the noise that was put in."),
        Mistake("sum instead of mean over the views", lambda g, c, d, n, t, r, b: _views(g, c, d, n, t, r * len(c), b),
                "The loss adds up the views. Divide by their number, so that the step does not depend on it."),
        Mistake("mean over pixels too", lambda g, c, d, n, t, r, b: _views(g, c, d, n, t, r / n[0, 0].numel(), b),
                "`.mean()` divides by the pixels and channels as well. The mean is over the views only."),
        Mistake("the same noise in every step",
                lambda g, c, d, n, t, r, b: _views(g, c, d, n[:1].expand_as(n), t, r, b),
                "noises[0] was used throughout. Step i has its own noise, noises[i]."),
        Mistake("noise levels not annealed", lambda g, c, d, n, t, r, b: _views(g, c, d, n, [t[0]] * len(t), r, b),
                "times[0] was used throughout. Step i works at level times[i]."),
        Mistake("background forgotten", lambda g, c, d, n, t, r, b: _views(g, c, d, n, t, r, 1.0),
                "The renders have the default white background. Hand `background` on to render."),
        Mistake("colour never moves", lambda *a: _views(*a, density_only=True),
                "Only the density was optimised. grid.parameters() holds both, density and colour levels."),
        Mistake("Adam instead of plain gradient descent", lambda *a: _views(*a, optimiser=torch.optim.Adam),
                "`torch.optim.SGD` is asked for, without momentum: Adam divides by the gradient's size."),
        Mistake("missing factor 1/2", lambda g, c, d, n, t, r, b: _views(g, c, d, n, t, 2 * r, b),
                "The gradient of a squared distance is twice the difference: halve the square."),
        Mistake("density never moves", lambda *a: _views(*a, colour_only=True),
                "Only the colour was optimised. grid.parameters() holds both, density and colour levels."),
        Mistake("renders not noised", lambda *a: _views(*a, noised=False),
                "The denoiser was asked at the clean renders. It wants x_t = alpha x0 + sigma eps."),
        Mistake("noise levels reversed", lambda g, c, d, n, t, r, b: _views(g, c, d, n, t[::-1], r, b),
                "The run went from little noise to much. times is already in order."),
        Mistake("alpha in the gradient", lambda *a: _views(*a, with_alpha=True),
                "The gradient was taken with respect to x_t and carries alpha. The surrogate multiplies x0, the "
                "renders."),
    ),
)  # fmt: skip

SET = ProblemSet(
    "problem set 3, renderer and 3D", (CAMERA_POSITION, OPACITY, COMPOSITE, TRILINEAR, MARCH, DISTILL_VIEWS)
)
