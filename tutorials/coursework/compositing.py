"""The first half of problem set 3: cameras, opacity, and what a ray gathers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jsdsd.scene.cameras import orbit

from .problem import Case, Mistake, Problem

F64 = torch.float64


def rand(g: torch.Generator, *shape: int) -> Tensor:
    """Uniform numbers in [0, 1), float64."""
    return torch.rand(shape, generator=g, dtype=F64)


# --------------------------------------------------------------------------------------------------------- 1: cameras
def angles(g: torch.Generator) -> list[Case]:
    def case(label: str, azimuth: Tensor, elevation: Tensor, radius: Tensor) -> Case:
        return Case(label, {"azimuth": azimuth, "elevation": elevation, "radius": radius})

    turns = torch.arange(4, dtype=F64) * 90
    return [
        case("all around", 360 * rand(g, 9), 160 * rand(g, 9) - 80, 1 + 4 * rand(g, 9)),
        case("front, right, back, left at eye level", turns, 0 * turns, torch.full_like(turns, 4)),
    ]


def _position(azimuth: Tensor, elevation: Tensor, radius: Tensor) -> Tensor:
    return orbit(azimuth, elevation, radius, dtype=F64).position


def _by_hand(az: Tensor, el: Tensor, radius: Tensor) -> Tensor:
    """In radians, and of any size: `orbit` refuses elevations beyond the poles."""
    return radius[:, None] * torch.stack([az.sin() * el.cos(), -az.cos() * el.cos(), el.sin()], -1)


CAMERA_POSITION = Problem(
    "camera_position", 4, _position, angles, outputs=("position (B, 3)",),
    mistakes=(
        Mistake("degrees taken for radians", _by_hand,
                "sin and cos want radians: torch.deg2rad first. Angles are in degrees at the border, in radians "
                "inside."),
        Mistake("front and back swapped", lambda a, e, r: _position(180 - a, e, r),
                "Azimuth 0 must see the front, and objects face -Y: the camera is then on the -Y side, y = "
                "-cos(azimuth)."),
        Mistake("turned by 180 degrees", lambda a, e, r: _position(a + 180, e, r),
                "x and y have the wrong sign, so that azimuth 0 sees the back: at azimuth 0 the camera is at y = "
                "-radius."),
        Mistake("azimuth runs the wrong way", lambda a, e, r: _position(-a, e, r),
                "At azimuth 90 the camera is on the +X side, on the right hand of someone who looks at the front."),
        Mistake("azimuth counted from +X", lambda a, e, r: _position(a + 90, e, r),
                "These are the textbook's polar angles, x = cos, y = sin. Here azimuth 0 is on the -Y side and x = "
                "sin."),
        Mistake("Y up instead of Z up", lambda a, e, r: _position(a, e, r)[:, [0, 2, 1]],
                "The height went into y. The scene is Z up; only exported meshes are Y up."),
        Mistake("elevation points down", lambda a, e, r: _position(a, -e, r),
                "Positive elevation is above the horizon: z = +radius sin(elevation)."),
        Mistake("elevation counted from the pole", lambda a, e, r: _by_hand(a.deg2rad(), (90 - e).deg2rad(), r),
                "sin and cos of the elevation are swapped: it is counted from the horizon, 90 being straight above."),
        Mistake("cos(elevation) forgotten",
                lambda a, e, r: torch.cat([_position(a, 0 * e, r)[:, :2], _position(a, e, r)[:, 2:]], 1),
                "The camera does not stay on its sphere: higher up, x and y shrink by cos(elevation)."),
        Mistake("radius forgotten", lambda a, e, r: _position(a, e, torch.ones_like(r)),
                "This is a unit vector: multiply it by radius."),
        Mistake("radians taken for degrees", lambda a, e, r: _by_hand(a.rad2deg(), e.rad2deg(), r),
                "`rad2deg` is the other direction: degrees come in, and `torch.deg2rad` makes what sin and cos want."),
        Mistake("height without the radius",
                lambda a, e, r: torch.cat([_position(a, e, r)[:, :2], e.deg2rad().sin()[:, None]], 1),
                "x and y are multiplied by radius, z is not: all three are."),
        Mistake("camera below its point", lambda a, e, r: -_position(a, e, r),
                "All three signs are reversed: this is the direction in which the camera looks, not where it stands."),
    ),
)  # fmt: skip


# --------------------------------------------------------------------------------------------------------- 2: opacity
def fog(g: torch.Generator) -> list[Case]:
    return [
        Case(label, {"density": scale * rand(g, 5, 4), "length": 0.1 + rand(g, 5, 4)})
        for label, scale in (("thin fog", 0.5), ("thick fog", 20.0))
    ]


def _opacity(density: Tensor, length: Tensor) -> Tensor:
    return -torch.expm1(-density * length)


OPACITY = Problem(
    "opacity", 3, _opacity, fog, outputs=("opacity (K, P)",), differentiate=("density",),
    mistakes=(
        Mistake("transmittance for opacity", lambda d, x: torch.exp(-d * x),
                "exp(-density * length) is what comes through. The opacity is 1 minus it: empty space has none."),
        Mistake("missing minus sign", lambda d, x: torch.exp(d * x) - 1,
                "exp(+density * length) grows without end. Light is lost: the exponent is negative, 1 - exp(-...)."),
        Mistake("1 minus missing", lambda d, x: -torch.exp(-d * x),
                "The opacity of empty space is 0, not -1: 1 - exp(-density * length)."),
        Mistake("linear", lambda d, x: d * x,
                "density * length is right for very thin fog only, and exceeds 1 in thick fog."),
        Mistake("linear and clamped", lambda d, x: (d * x).clamp(max=1),
                "density * length is right for very thin fog only, and clamping takes the gradient away in thick fog: "
                "1 - exp(-density * length)."),
        Mistake("length forgotten", lambda d, x: 1 - torch.exp(-d),
                "A part twice as long absorbs more: density is per scene unit, so multiply it by length."),
        Mistake("divided by length", lambda d, x: 1 - torch.exp(-d / x),
                "density is per scene unit: times the length it has no unit, and that is what exp wants."),
        Mistake("power of 2", lambda d, x: 1 - torch.exp2(-d * x),
                "This is 1 - 2^(-density * length): density counts in e-foldings (`torch.exp`), not in halvings."),
        Mistake("power of 10", lambda d, x: 1 - 10 ** (-d * x),
                "This is 1 - 10^(-density * length): density counts in e-foldings (`torch.exp`), not in decades."),
        Mistake("density squared", lambda d, x: 1 - torch.exp(-(d**2) * x),
                "The exponent is -density * length, density once."),
        Mistake("saturating fraction", lambda d, x: d * x / (1 + d * x),
                "x / (1 + x) also lies in 0 ... 1, but light in fog falls exponentially: 1 - exp(-density * length)."),
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------- 3: composite
def layers(g: torch.Generator) -> list[Case]:
    def case(label: str, opacity: Tensor) -> Case:
        return Case(label, {"opacity": opacity, "colour": rand(g, *opacity.shape, 3), "background": rand(g, 3)})

    wall = 0.8 * rand(g, 5, 3)
    wall[1, 0] = wall[4, 1] = wall[0, 2] = 1
    return [case("6 layers", rand(g, 6, 4)), case("1 layer", rand(g, 1, 5)), case("an opaque layer", wall)]


def compose(
    opacity: Tensor, colour: Tensor, background: Tensor, *,
    visible: bool = True, reverse: bool = False, inclusive: bool = False, additive: bool = False, frozen: bool = False,
    own: bool = True, normalise: bool = False, behind: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """rgb (P, 3) and opacity (P,) of layers, front first; the keywords are the mistakes' switches."""
    if reverse:
        opacity, colour = opacity.flip(0), colour.flip(0)
    rest, weights = torch.ones_like(opacity[0]), []
    for layer in opacity:
        before = rest.detach() if frozen else rest
        rest = rest - layer if additive else rest * (1 - layer)
        weights.append((layer if own else 1.0) * (rest if inclusive else before) if visible else layer)
    weight = torch.stack(weights)  # (K, P)
    if normalise:
        weight = weight / weight.sum(0)
    share = rest if behind is None else behind(rest)
    return (weight[..., None] * colour).sum(0) + share[:, None] * background, 1 - rest


def _by_logs(opacity: Tensor, colour: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    after = torch.log(1 - opacity).cumsum(0)  # log T_{k+1}
    weight = opacity * torch.exp(after - torch.log(1 - opacity))
    return (weight[..., None] * colour).sum(0) + after[-1].exp()[:, None] * background, 1 - after[-1].exp()


COMPOSITE = Problem(
    "composite", 6, compose, layers, outputs=("rgb (P, 3)", "opacity (P,)"), differentiate=("opacity", "colour"),
    mistakes=(
        Mistake("opacity without transmittance", lambda *a: compose(*a, visible=False),
                "Every layer was added with its own opacity, as if nothing stood in front: multiply by T_k, what comes "
                "through the layers before it."),
        Mistake("wrong order of compositing", lambda *a: compose(*a, reverse=True),
                "The last layer hides the first. Layer 0 is the one next to the camera: composite front to back."),
        Mistake("own opacity in the transmittance", lambda *a: compose(*a, inclusive=True),
                "T_k is the product over the layers *before* k. `cumprod` includes layer k itself: shift it by one, "
                "beginning with 1."),
        Mistake("opacities added instead of multiplied", lambda *a: compose(*a, additive=True),
                "1 - sum of opacities becomes negative behind a few layers. What comes through is a product, of (1 - "
                "opacity)."),
        Mistake("background dropped", lambda *a: compose(*a, behind=torch.zeros_like),
                "What comes through all layers shows the background: add T_end * background."),
        Mistake("background not dimmed", lambda *a: compose(*a, behind=torch.ones_like),
                "The background was added in full. Only T_end of it comes through."),
        Mistake("background weighed by the opacity", lambda *a: compose(*a, behind=lambda rest: 1 - rest),
                "The background shows where nothing is in front: its weight is T_end = 1 - opacity, not opacity."),
        Mistake("weights normalised", lambda *a: compose(*a, normalise=True),
                "The weights were divided by their sum, which makes thin fog opaque: what is missing to 1 is the "
                "background's."),
        Mistake("transmittance detached", lambda *a: compose(*a, frozen=True),
                "The picture is right, but the gradient does not know that a layer hides those behind it: T_k must "
                "stay "
                "on the graph."),
        Mistake("log of an opaque layer", _by_logs,
                "Right until a layer has opacity 1: log(1 - 1) is -inf, and -inf - -inf is NaN. Multiply instead, with "
                "`cumprod`."),
        Mistake("transmittance returned for opacity", lambda o, c, b: (compose(o, c, b)[0], 1 - compose(o, c, b)[1]),
                "The colour is right. The second result is the opacity of the ray, 1 - T_end, not T_end."),
        Mistake("opacity of the ray as a sum", lambda o, c, b: (compose(o, c, b)[0], o.sum(0)),
                "The colour is right. Opacities do not add up: the ray's is 1 - T_end."),
        Mistake("colour not weighed by its opacity", lambda *a: compose(*a, own=False),
                "Layer k counts with T_k times its own opacity; the opacity is missing."),
        Mistake("opacity squared", lambda o, c, b: (compose(o, o[..., None] * c, b)[0], compose(o, c, b)[1]),
                "Each colour was multiplied by its opacity twice. The colours are not premultiplied."),
        Mistake("background detached from the layers", lambda *a: compose(*a, behind=torch.Tensor.detach),
                "The picture is right, but T_end in front of the background was cut from the graph."),
    ),
)  # fmt: skip
