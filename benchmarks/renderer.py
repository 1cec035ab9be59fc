"""How fast is sampling on the grid's own planes, and how exact?  `make bench`, or `python benchmarks/renderer.py`.

Every contender renders the same views with the same number of samples per ray, forward and backward, float32.  The
repetitions are interleaved, so that a busy moment of the machine hits all alike; the medians are printed.  The errors
are those of rgb against a march with 16 times as many samples.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from jsdsd.scene.cameras import Camera, orbit
from jsdsd.scene.renderer import render_fields
from jsdsd.scene.voxels import grid_points

Renderer = Callable[[Tensor, Tensor, Camera, int], Tensor]  # density, colour, camera, size -> rgb (B, H, W, 3)


def scene(resolution: int) -> tuple[Tensor, Tensor]:
    """Three soft balls, one of which touches a side of the box, in smoothly changing colours."""
    points = grid_points(resolution)
    centres = torch.tensor([[0.0, 0.0, -0.3], [0.25, -0.2, 0.45], [-0.6, 0.3, 0.1]])
    distance = (points[..., None, :] - centres).norm(dim=-1) - torch.tensor([0.5, 0.35, 0.4])
    return 10 * torch.sigmoid(-distance.amin(-1) / 0.03), (0.5 + 0.5 * torch.sin(4 * points)).movedim(-1, 0)


def composite(sample: Tensor, length: Tensor) -> Tensor:
    """Samples (B, 4, S, P) that stand for `length` (B, S or 1, P) each -> rgb (B, 3, P) before a white background."""
    tau = sample[:, 0] * length
    upto = tau.cumsum(1)
    weight = torch.exp(tau - upto) * -torch.expm1(-tau)  # (B, S, P)
    return (weight[:, None] * sample[:, 1:]).sum(2) + torch.exp(-upto[:, None, -1])


def march_3d(
    density: Tensor, colour: Tensor, camera: Camera, size: int, *, samples: int, per_view: bool, fixed: bool = False
) -> Tensor:
    """Even samples and 3D `grid_sample`, from where the ray enters the box to where it leaves it.

    per_view: one batch entry per view, which lets the 3D kernel use several cores; else all points in one entry.
    fixed: one interval for all rays, from the nearest to the farthest point that the box can have, as samplers do that
    know no box; what lies outside counts as empty.
    """
    count = len(camera) if per_view else 1
    origin, direction = (x.reshape(count, -1, 3) for x in camera.rays(size))  # (N, P, 3)
    if fixed:
        distance = origin.norm(dim=-1)
        near, far = distance - 3**0.5, distance + 3**0.5
    else:
        sides = torch.stack([(-1 - origin) / direction, (1 - origin) / direction])
        near, far = sides.amin(0).amax(-1).clamp(min=0), sides.amax(0).amin(-1)
    length = (far - near).clamp(min=0)[:, None] / samples  # (N, 1, P)
    t = near[:, None] + length * (torch.arange(samples) + 0.5)[:, None]  # (N, S, P)
    points = origin[:, None] + t[..., None] * direction[:, None]  # (N, S, P, 3)
    volume = torch.cat([density[None], colour]).expand(count, -1, -1, -1, -1)
    padding = "zeros" if fixed else "border"
    sample = F.grid_sample(volume, points[:, :, None], align_corners=True, padding_mode=padding)[:, :, :, 0]
    return composite(sample, length).movedim(1, -1).reshape(len(camera), size, size, 3)


def saved_bytes(run: Callable[[], object]) -> int:
    """What autograd keeps between forward and backward."""
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        result = run()
    del result
    return sum(kept.values())


def compare(
    name: str, contenders: dict[str, Renderer], resolution: int, camera: Camera, size: int, repeats: int
) -> None:
    density, colour = (x.requires_grad_() for x in scene(resolution))
    probe = torch.randn(len(camera), size, size, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # view by view: 16 times the samples want 16 times the memory
        views = (camera[i] for i in range(len(camera)))
        fine = torch.cat([march_3d(density, colour, v, size, samples=16 * resolution, per_view=False) for v in views])
    forward: dict[str, list[float]] = {key: [] for key in contenders}
    backward: dict[str, list[float]] = {key: [] for key in contenders}
    for turn in range(-2, repeats):  # two turns to warm up
        for key, draw in contenders.items():
            start = time.perf_counter()
            loss = (draw(density, colour, camera, size) * probe).sum()
            middle = time.perf_counter()
            torch.autograd.grad(loss, (density, colour))
            if turn >= 0:
                forward[key].append(1e3 * (middle - start))
                backward[key].append(1e3 * (time.perf_counter() - middle))
    total = {k: statistics.median(f + b for f, b in zip(forward[k], backward[k], strict=True)) for k in contenders}
    ours = next(iter(contenders))
    print(f"\n{name}: {resolution} samples per ray, {repeats} interleaved repetitions, medians")
    print(f"{'':36} {'ms':>7} {'ratio':>6} {'forward':>8} {'backward':>9} {'kept MB':>8} {'mean error':>11} {'max':>7}")
    for key, draw in contenders.items():
        error = (draw(density, colour, camera, size).detach() - fine).abs()
        kept = saved_bytes(lambda draw=draw: draw(density, colour, camera, size)) / 1e6  # type: ignore[misc]
        print(
            f"{key:36} {total[key]:7.1f} {total[key] / total[ours]:6.2f} {statistics.median(forward[key]):8.1f} "
            f"{statistics.median(backward[key]):9.1f} {kept:8.0f} {error.mean():11.5f} {error.max():7.4f}",
            flush=True,
        )


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="timed repetitions of every contender")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    print(
        f"{processor()}, {os.cpu_count()} cores, {arguments.threads} threads, torch {torch.__version__}, "
        f"{torch.backends.cpu.get_cpu_capability()}{load}"
    )
    for name, resolution, size, camera in (
        ("64^3, 4 views of 64^2", 64, 64, orbit([10.0, 100.0, 200.0, 300.0], [10.0, 20.0, 30.0, 5.0])),
        ("128^3, 1 view of 128^2", 128, 128, orbit(30.0, 20.0)),
    ):

        def cast(per_view: bool, fixed: bool = False, samples: int = resolution) -> Renderer:
            return lambda *a: march_3d(*a, samples=samples, per_view=per_view, fixed=fixed)

        contenders: dict[str, Renderer] = {
            "planes of the grid (jsdsd)": lambda *a: render_fields(*a).rgb,
            "3D grid_sample, entry to exit": cast(per_view=False),
            "3D grid_sample, entry to exit, batch": cast(per_view=True),
            "3D grid_sample, fixed interval": cast(per_view=False, fixed=True),
        }
        if len(camera) == 1:
            del contenders["3D grid_sample, entry to exit, batch"]  # the same as the one before
        compare(name, contenders, resolution, camera, size, arguments.repeats)


if __name__ == "__main__":
    main()
