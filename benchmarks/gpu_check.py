"""What jsdsd does on a real GPU: memory, seconds, finite gradients, values against the CPU.  No network, no weights.

    python benchmarks/gpu_check.py --out DIR [--seconds 200] [--only renderer,steps] [--smoke]

Run it from the repository root (or with PYTHONPATH on it).  After every measurement DIR/gpu.json is written anew, so a
run that is cut off keeps what it has; the last lines printed are a short table.  --smoke: the same code on the CPU with
the tests' miniature and tiny sizes, to see that the script itself works (about a minute).

Sections, in order: environment, renderer, steps, vae, whole, toybox, tests; where --only names them, attention and
compile.  Each gets at most its share of the seconds; what does not fit is listed under "skipped".  No setting of the
card is changed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
sys.path.insert(0, os.getcwd())

import torch

GB = 1e9
# seconds of 200, in the order of the run
SHARE = {"environment": 5, "renderer": 15, "steps": 70, "vae": 30, "whole": 25, "toybox": 30, "tests": 25}
EXTRA = {"attention": 15, "compile": 110}  # with --only
# Planned peaks in GB by jsdsd.sdxl.memory.plan (fp16 U-Net, fp32 VAE, sliced and with checkpointing, 128 voxels,
# renders of 512 pixels), by picture and views: computing them takes 10 s each, so they stand here.
PLANNED = {(512, 1): 9.09, (1024, 1): 15.25, (1024, 2): 17.39}


def plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class Report:
    """The results so far; every change is on the disk at once."""

    def __init__(self, place: Path):
        self.place, self.data = place, {"skipped": [], "errors": [], "seconds": {}}
        place.parent.mkdir(parents=True, exist_ok=True)

    def put(self, section: str, name: str, value: Any) -> None:
        value = plain(value)
        self.data.setdefault(section, {})[name] = value
        self.save()
        print(f"[{section}] {name}: {json.dumps(value, default=str)[:230]}", flush=True)

    def skip(self, section: str, name: str) -> None:
        self.data["skipped"].append(f"{section}: {name}")
        self.save()

    def error(self, where: str, error: BaseException) -> None:
        line = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"
        self.data["errors"].append({"where": where, "error": text, "at": f"{Path(line.filename).name}:{line.lineno}"})
        self.save()
        print(f"[{where}] FAILED {text}", flush=True)

    def save(self) -> None:
        part = self.place.with_suffix(".part")
        part.write_text(json.dumps(self.data, indent=1, default=str) + "\n")
        part.replace(self.place)


class Clock:
    """Seconds left for the section at hand and for the run."""

    def __init__(self, seconds: float):
        self.end, self.part = time.monotonic() + seconds, math.inf

    def begin(self, seconds: float) -> None:
        self.part = time.monotonic() + seconds

    def left(self) -> float:
        return min(self.end, self.part) - time.monotonic()


class Run:
    def __init__(self, args: argparse.Namespace):
        self.smoke = args.smoke
        self.device = "cpu" if args.smoke else args.device
        self.gpu = self.device != "cpu"
        self.report, self.clock = Report(Path(args.out) / "gpu.json"), Clock(args.seconds)

    def sync(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()

    def reset_peak(self) -> None:
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float | None:
        return round(torch.cuda.max_memory_allocated() / GB, 3) if self.gpu else None

    def held_gb(self) -> float | None:
        """With what the allocator keeps: what a smaller card would have to have."""
        return round(torch.cuda.max_memory_reserved() / GB, 3) if self.gpu else None

    def seconds(self, call: Callable[[], Any], rounds: int = 7, warm: int = 2) -> float:
        """Median wall seconds of a call, synchronised."""
        for _ in range(warm):
            call()
        times = []
        for _ in range(rounds):
            self.sync()
            started = time.perf_counter()
            call()
            self.sync()
            times.append(time.perf_counter() - started)
        return round(statistics.median(times), 5)

    @contextmanager
    def caught(self, where: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            self.report.error(where, error)
        except Exception as error:  # one failure must not hide the other measurements
            self.report.error(where, error)
            if self.gpu:
                torch.cuda.empty_cache()


def relative(x: torch.Tensor, reference: torch.Tensor) -> float:
    x, reference = x.detach().double().cpu(), reference.detach().double().cpu()
    return float(f"{float((x - reference).norm() / reference.norm().clamp(min=1e-30)):.3g}")


# ---------------------------------------------------------------- environment


def environment(run: Run) -> None:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count()}
    for name in ("torch", "triton", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "trimesh"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    if run.gpu:
        facts = torch.cuda.get_device_properties(run.device)
        free, total = torch.cuda.mem_get_info()
        found |= {
            "card": facts.name, "memory_gb": round(total / GB, 2), "free_gb": round(free / GB, 2),
            "cuda": torch.version.cuda, "capability": f"{facts.major}.{facts.minor}",
        }  # fmt: skip
        with run.caught("environment: precision"):
            found["cudnn_allow_tf32"] = torch.backends.cudnn.allow_tf32
            found["matmul_precision"] = torch.get_float32_matmul_precision()
    run.report.put("environment", "versions", found)
    with run.caught("environment: preset"):
        from jsdsd.sdxl.numerics import preset_for

        run.report.put("environment", "preset", repr(preset_for(run.device)))


# ---------------------------------------------------------------- renderer


def scene(resolution: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """A ball with noise: density (R, R, R), colour (3, R, R, R), on the CPU."""
    from jsdsd.scene.voxels import VoxelGrid

    generator = torch.Generator().manual_seed(0)
    density, colour = VoxelGrid.blob((resolution,), density=6.0).fields()
    noise = torch.rand(resolution, resolution, resolution, generator=generator)
    shades = torch.rand(3, resolution, resolution, resolution, generator=generator)
    return (density.detach() * (0.5 + noise)).to(dtype), shades.to(dtype)


def renderer(run: Run) -> None:
    from jsdsd.scene.cameras import orbit
    from jsdsd.scene.renderer import render_fields

    def pictures(density: Any, colour: Any, views: int, size: int) -> torch.Tensor:
        angles = [17.0 + 360.0 * i / views for i in range(views)]
        out = render_fields(density, colour, orbit(angles, 20.0), size, 0.7)
        return torch.cat([out.rgb, out.depth[..., None], out.opacity[..., None]], -1)

    def both(density: Any, colour: Any, views: int, size: int, weight: Any) -> list[torch.Tensor]:
        leaves = [density.clone().requires_grad_(), colour.clone().requires_grad_()]
        out = pictures(*leaves, views, size)
        return [out.detach(), *torch.autograd.grad((out * weight).sum(), leaves)]

    small, size = (16, 24) if run.smoke else (64, 64)
    fields = scene(small)
    weight = torch.randn(4, size, size, 5, generator=torch.Generator().manual_seed(1))
    exact = both(*(x.double() for x in fields), 4, size, weight.double())
    here = both(*fields, 4, size, weight)
    there_fields = [x.to(run.device) for x in fields]
    there = [both(*there_fields, 4, size, weight.to(run.device)) for _ in range(3)]
    names = ("pictures", "density gradient", "colour gradient")
    for name, e, h, *t in zip(names, exact, here, *there, strict=True):
        run.report.put("renderer", f"values, {name}", {
            "gpu against cpu float64": relative(t[0], e), "cpu float32 against it": relative(h, e),
            "largest difference gpu - float64": float((t[0].cpu().double() - e).abs().max()),
            "three gpu runs have the same bytes": bool(torch.equal(t[0], t[1]) and torch.equal(t[1], t[2])),
        })  # fmt: skip
    sizes = ((16, 1, 24),) if run.smoke else tuple(
        (r, v, s) for r in (64, 128, 192) for v, s in ((4, 64), (1, 512), (4, 512))
    )  # fmt: skip
    for resolution, views, pixels in sizes:
        name = f"{resolution} voxels, {views} x {pixels} px"
        if run.clock.left() < 2:
            run.report.skip("renderer", name)
            continue
        with run.caught(f"renderer: {name}"):
            fields = [x.to(run.device) for x in scene(resolution)]
            weight = torch.randn(views, pixels, pixels, 5, device=run.device)
            run.reset_peak()
            both(*fields, views, pixels, weight)
            peak = run.peak_gb()
            forward = run.seconds(lambda: pictures(*fields, views, pixels), 5, 1)  # noqa: B023
            whole = run.seconds(lambda: both(*fields, views, pixels, weight), 5, 1)  # noqa: B023
            run.report.put("renderer", name, {"forward_s": forward, "forward_and_backward_s": whole, "peak_gb": peak})


def attention(run: Run) -> None:
    """Which kernels take the VAE's one head of 512 in float32, and the U-Net's heads of 64 in half precision."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    tokens = 64 if run.smoke else 128 * 128
    shapes = {
        "VAE at 1024 px, float32": ((1, 1, tokens, 512), torch.float32, True),
        "U-Net at 1024 px, half": ((2, 10, tokens // 4, 64), torch.bfloat16 if run.smoke else torch.float16, False),
    }
    for what, (shape, dtype, gradient) in shapes.items():
        found: dict[str, Any] = {}
        for backend in (None, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION,
                        SDPBackend.MATH):  # fmt: skip
            name = "default" if backend is None else backend.name.lower()
            try:
                q, k, v = (torch.randn(shape, device=run.device, dtype=dtype, requires_grad=gradient) for _ in "qkv")

                def call(q: Any = q, k: Any = k, v: Any = v, backend: Any = backend, gradient: bool = gradient) -> None:
                    if backend is None:
                        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
                    else:
                        with sdpa_kernel(backend):
                            out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
                    if gradient:
                        torch.autograd.grad(out.sum(), (q, k, v))

                run.reset_peak()
                call()
                found[name] = {"peak_gb": run.peak_gb(), "s": run.seconds(call, 3, 1)}
            except Exception as error:  # a kernel that does not take it is a result
                found[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
        run.report.put("attention", what, found)


# ---------------------------------------------------------------- SDXL with random weights


def random_weights(kind: Any, config: dict[str, Any], dtype: torch.dtype, device: str, seed: int) -> Any:
    """A network of this configuration, made on the device, whose layers keep the size of what passes through them."""
    with torch.device("meta"):
        net = kind(**config)
    net = net.to(dtype).to_empty(device=device).requires_grad_(False)
    generator = torch.Generator(device).manual_seed(seed)
    for name, p in net.named_parameters():
        if p.ndim > 1:
            p.normal_(std=1 / math.sqrt(p[0].numel()), generator=generator)
        else:
            p.fill_(1.0 if name.endswith("weight") else 0.0)
    return net


def pipeline(run: Run, dtype: torch.dtype) -> Any:
    if run.smoke:
        sys.path.insert(0, str(next(Path("tests").rglob("miniature.py")).parent.resolve()))
        import miniature

        pipe = miniature.pipeline(sample_size=32)  # 256 pixels: SDXL's settings, not the toybox's
        pipe.text_encoder = pipe.text_encoder_2 = None
        return pipe
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    from jsdsd.sdxl import sdxl_base

    return StableDiffusionXLPipeline(
        vae=random_weights(AutoencoderKL, sdxl_base.VAE, torch.float32, run.device, 1),
        unet=random_weights(UNet2DConditionModel, sdxl_base.UNET, dtype, run.device, 2),
        scheduler=EulerDiscreteScheduler(**sdxl_base.SCHEDULER),
        text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, add_watermarker=False,
    )  # fmt: skip


def guided(run: Run, pipe: Any, dtype: torch.dtype, numerics: Any) -> Any:
    """A Guidance whose prompts are random embeddings of the right shapes."""
    from jsdsd.sdxl.embeddings import Embeddings
    from jsdsd.sdxl.guidance import Guidance

    class RandomPrompts(Guidance):
        def encode_prompts(self, prompts: Sequence[str], negative_prompt: str | None = None) -> Embeddings:
            config, generator = self.unet.config, torch.Generator().manual_seed(0)
            vector = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            tokens = torch.randn(len(prompts), 77, config.cross_attention_dim, generator=generator)
            vectors = torch.randn(len(prompts), vector, generator=generator)
            tokens, vectors = (x.to(self.device, self.dtype) for x in (tokens, vectors))
            return Embeddings(tokens, vectors, 0 * tokens, 0 * vectors)

    pipe.vae.disable_gradient_checkpointing()
    pipe.unet.disable_gradient_checkpointing()
    return RandomPrompts(pipe, device=run.device, dtype=dtype, numerics=numerics)


def one_run(
    run: Run, guidance: Any, objective: Any, views: int, size: int, count: int = 3, **more: Any
) -> dict[str, Any]:
    from jsdsd.optimise import optimise

    run.reset_peak()
    seconds, finite, calls, seen = [], True, 0, None
    resolution = 16 if run.smoke else more.pop("resolution", 128)
    more.pop("resolution", None)
    for seen in optimise(guidance, "a corgi", objective, seed=0, steps=count, views_per_step=views,
                         resolution=resolution, sizes=(size,), **more):  # fmt: skip
        seconds.append(seen.record.seconds)
        calls = seen.record.unet_calls
        parameters = list(seen.scene.parameters())
        finite = finite and all(p.grad is not None and bool(p.grad.isfinite().all()) for p in parameters)
    reached = all(bool(p.grad.any()) for p in seen.scene.parameters())
    return {
        "s_a_step": round(statistics.median(seconds[1:]), 4), "s_first": round(seconds[0], 3), "unet_calls": calls,
        "peak_gb": run.peak_gb(), "allocator_gb": run.held_gb(), "finite": finite, "reaches every level": reached,
        "grad_rms": round(float(seen.record.grad_norm), 3),
    }  # fmt: skip


def objectives() -> dict[str, Any]:
    from jsdsd.objectives import JSD, SDS

    return {"jsd": JSD(), "jsd, no inversion": JSD(inversion_steps=0), "sds": SDS()}


def steps(run: Run) -> None:
    from jsdsd.sdxl.numerics import Numerics

    half = torch.bfloat16 if run.smoke else torch.float16
    pipe, render = pipeline(run, torch.float32 if run.smoke else half), 32 if run.smoke else 512
    plan = [(half, 1024, 2), (half, 512, 1), (half, 1024, 4), (half, 768, 2), (half, 512, 4), (torch.bfloat16, 1024, 2),
            (torch.bfloat16, 512, 1)]  # fmt: skip
    if run.smoke:
        plan = [(torch.float32, 256, 1), (half, 256, 2)]
    for dtype, pixels, views in sorted(plan, key=lambda row: row[0] != plan[0][0]):  # one cast of the U-Net
        guidance = None
        for name, objective in list(objectives().items())[: 3 if dtype == plan[0][0] and pixels < 1024 else 1]:
            label = f"{name}, {pixels} px, {views} views, {str(dtype).removeprefix('torch.')}"
            if run.clock.left() < 3:
                run.report.skip("steps", label)
                continue
            with run.caught(f"steps: {label}"):
                guidance = guidance or guided(run, pipe, dtype, Numerics(pixels, 0.1, gradient_checkpointing=True))
                found = one_run(run, guidance, objective, views, render)
                found["planned_gb"] = PLANNED.get((pixels, views))
                run.report.put("steps", label, found)
    run.pipe = pipe  # type: ignore[attr-defined]


def vae(run: Run) -> None:
    """The encoder's share, and what slicing, no checkpointing and TF32 change."""
    from jsdsd import optimise as module
    from jsdsd.sdxl.latent import LinearColours
    from jsdsd.sdxl.numerics import Numerics

    pipe = getattr(run, "pipe", None) or pipeline(run, torch.float32 if run.smoke else torch.float16)
    run.pipe = pipe  # type: ignore[attr-defined]
    dtype, pixels = pipe.unet.dtype, 256 if run.smoke else 1024
    pictures = torch.rand(4, pixels, pixels, 3, generator=torch.Generator().manual_seed(0)).to(run.device)

    def encoded(guidance: Any, views: int) -> torch.Tensor:
        rgb = pictures[:views].clone().requires_grad_()
        latents = guidance.encode_images(rgb)
        weight = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)).to(run.device)
        return torch.autograd.grad((latents * weight).sum(), rgb)[0]

    results: dict[str, torch.Tensor] = {}
    for name, views, checkpointing, slicing, tf32 in (
        ("4 views, sliced", 4, True, True, None), ("4 views", 4, True, False, None),
        ("4 views, sliced, no checkpointing", 4, False, True, None), ("1 view", 1, True, False, None),
        ("1 view, no TF32", 1, True, False, False), ("1 view, no checkpointing", 1, False, False, None),
    ):  # fmt: skip
        if run.clock.left() < 3:
            run.report.skip("vae", name)
            continue
        before = torch.backends.cudnn.allow_tf32
        with run.caught(f"vae: {name}"):
            guidance = guided(run, pipe, dtype, Numerics(pixels, None, gradient_checkpointing=checkpointing))
            (guidance.vae.enable_slicing if slicing else guidance.vae.disable_slicing)()
            if tf32 is not None:
                torch.backends.cudnn.allow_tf32 = tf32
            run.reset_peak()
            base = torch.cuda.memory_allocated() / GB if run.gpu else 0.0
            results[name] = encoded(guidance, views)
            found = {"peak_gb_above_weights": round((run.peak_gb() or 0.0) - base, 3)}
            found["s"] = run.seconds(lambda: encoded(guidance, views), 2, 0)  # noqa: B023
            found["finite"] = bool(results[name].isfinite().all())
            sizes = results[name].abs().amax(-1).flatten().float()
            some = sizes[torch.randint(len(sizes), (100_000,), device=sizes.device)]  # quantile has a size limit
            found["pixel gradient, median and 99 %"] = [round(float(some.quantile(q)), 4) for q in (0.5, 0.99)]
            run.report.put("vae", name, found)
        torch.backends.cudnn.allow_tf32 = before
    pairs = ("1 view, no TF32", "1 view"), ("4 views", "4 views, sliced"), ("1 view", "1 view, no checkpointing")
    for one, other in pairs:
        if one in results and other in results:
            run.report.put("vae", f"gradient: {other} against {one}", relative(results[other], results[one]))
    pipe.vae.disable_slicing()
    results.clear()
    module.fit_linear_colours = lambda guidance: LinearColours(torch.randn(4, 4) / 2, torch.randn(5, 3) / 4, 1.0)
    for views in (4,):  # latent-space mode; a random VAE's colours are not linear, so the map is made up
        if run.clock.left() < 3:
            run.report.skip("vae", f"latent-space mode, {views} views")
            continue
        with run.caught(f"vae: latent-space mode, {views} views"):
            guidance = guided(run, pipe, dtype, Numerics(pixels))
            size = 64 if run.smoke else 256
            found = one_run(run, guidance, objectives()["jsd, no inversion"], views, size, latent=True, resolution=96)
            run.report.put("vae", f"latent-space mode, {views} views, jsd without inversion", found)


def whole(run: Run) -> None:
    """`generate` itself with the largest preset for a few steps: the plan's seconds, a checkpoint, a mesh; and how long
    the U-Net takes to make room for the text encoders and to come back, once an asset."""
    import jsdsd
    from jsdsd.sdxl.numerics import PRESETS

    if not hasattr(run, "pipe"):
        run.pipe = pipeline(run, torch.float32 if run.smoke else torch.float16)  # type: ignore[attr-defined]
    pipe = run.pipe  # type: ignore[attr-defined]
    for place in ("cpu", run.device):
        run.sync()
        started = time.perf_counter()
        pipe.unet.to(place)
        run.sync()
        run.report.put("whole", f"U-Net to {place.split(':')[0]}, s", round(time.perf_counter() - started, 2))
    preset = PRESETS[12 if run.smoke else max(PRESETS)]
    guidance = guided(run, pipe, pipe.unet.dtype, preset.numerics)
    guidance.preset = preset
    times: list[float] = []
    place = run.report.place.with_name("check.safetensors")
    more = {"resolution": 16, "render_sizes": (32,)} if run.smoke else {}
    run.reset_peak()
    started = time.perf_counter()
    asset = jsdsd.generate("a corgi", model=guidance, steps=3 if run.smoke else 4, progress=False, checkpoint=place,
                           callback=lambda _: times.append(time.perf_counter()), **more)  # fmt: skip
    run.sync()
    end = time.perf_counter()
    steps_s = [round(record["seconds"], 3) for record in asset.history]
    run.report.put("whole", f"generate, preset {preset.gigabytes}", {
        "s before the first step (the memory plan, mostly)": round(times[0] - started - steps_s[0], 1),
        "steps_s": steps_s, "s after the last step (the checkpoint)": round(end - times[-1], 2),
        "checkpoint_mb": round(place.stat().st_size / 1e6),
        "peak_gb": run.peak_gb(), "planned_gb": [round(p.total / GB, 2) for p in guidance.plans.values()],
    })  # fmt: skip
    place.unlink()
    started = time.perf_counter()
    try:
        faces = len(asset.mesh().faces)
    except ValueError as error:  # a few steps of noise may leave no surface
        faces = str(error)[:100]
    run.report.put("whole", "mesh", {"s": round(time.perf_counter() - started, 2), "faces": faces})


# ---------------------------------------------------------------- toybox and tests


def toybox(run: Run) -> None:
    import jsdsd
    from benchmarks.evidence.evaluate import against_truth, judged
    from benchmarks.evidence.judge import load_judge
    from jsdsd.sdxl.guidance import Guidance
    from jsdsd.toybox.captions import Label, caption

    judge, kept = load_judge(), {}
    few = {"steps": 2, "resolution": 12} if run.smoke else {}
    todo = [("mushroom", "red", run.device, torch.float32), ("mushroom", "red", run.device, torch.float32),
            ("duck", "yellow", run.device, torch.float16), ("mushroom", "red", "cpu", torch.float32)]  # fmt: skip
    for i, (kind, colour, device, dtype) in enumerate(todo[:2] if run.smoke else todo):
        name = f"{i}: {colour} {kind}, {device}, {str(dtype).removeprefix('torch.')}"
        if run.clock.left() < 8 and not run.smoke:
            run.report.skip("toybox", name)
            continue
        with run.caught(f"toybox: {name}"):
            guidance = Guidance.load("toybox", device=device, dtype=dtype)
            run.sync()
            started = time.perf_counter()
            asset = jsdsd.generate(caption(Label(((kind, colour),))), model=guidance, seed=0, progress=False, **few)
            run.sync()
            wall = time.perf_counter() - started
            grid = asset.grid.to("cpu")
            numbers = against_truth(grid, kind, colour) | judged(judge, grid, kind, colour)
            steps_s = statistics.median(record["seconds"] for record in asset.history[1:])
            run.report.put("toybox", name, {
                "s": round(wall, 2), "s_a_step": round(steps_s, 4), "steps": len(asset.history),
                **{k: round(v, 4) for k, v in numbers.items()},
            })  # fmt: skip
            kept[i] = torch.cat([level.flatten() for level in grid.levels])
    if 0 in kept and 1 in kept:
        run.report.put("toybox", "the same seed twice: same bytes", bool(torch.equal(kept[0], kept[1])))
        run.report.put("toybox", "the same seed twice: largest logit apart", float((kept[0] - kept[1]).abs().max()))


def tests(run: Run) -> None:
    left, root = max(20.0, run.clock.left()), Path("tests")
    command = [
        sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-o", "filterwarnings=", "-W",
        "ignore", "--tb=short", "--no-header", "-rfEs",
        *(str(file) for name in ("test_gpu.py", "test_renderer.py") for file in root.rglob(name)),
    ]  # fmt: skip
    if run.smoke:
        command += ["-k", "take_turns or checkpoint"]
    places = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "JSDSD_GPU": run.device, "PYTHONPATH": places}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=left)
        run.report.put("tests", "exit code", done.returncode)
        text = done.stdout + done.stderr
    except subprocess.TimeoutExpired as stop:
        text = (stop.stdout or b"").decode(errors="replace") + f"\nstopped after {left:.0f} s"
        run.report.put("tests", "exit code", "timeout")
    run.report.put("tests", "last line", next((x for x in reversed(text.splitlines()) if x.strip()), ""))
    run.report.put("tests", "tail", text.splitlines()[-60:])


def compiled(run: Run) -> None:
    """torch.compile of the U-Net: seconds until the first result, and of a guided call after that."""
    from jsdsd.sdxl.numerics import Numerics

    if not hasattr(run, "pipe"):
        run.pipe = pipeline(run, torch.float32 if run.smoke else torch.float16)  # type: ignore[attr-defined]
    pipe, pixels = run.pipe, 256 if run.smoke else 1024  # type: ignore[attr-defined]
    guidance = guided(run, pipe, pipe.unet.dtype, Numerics(pixels))
    embeddings = guidance.encode_prompts(["a corgi"])
    x = torch.randn(1, *guidance.latent_shape, generator=torch.Generator().manual_seed(0)).to(run.device)

    def call() -> torch.Tensor:
        return guidance.predict_eps(x, 500, embeddings, 7.5)

    plain, before = call(), run.seconds(call, 5, 2)
    run.report.put("compile", "type and pixels", f"{pipe.unet.dtype}, {pixels}")
    run.report.put("compile", "plain, guided call, s", before)
    guidance.unet.to(memory_format=torch.channels_last)
    run.report.put("compile", "channels_last, s", run.seconds(call, 5, 2))
    guidance.unet.to(memory_format=torch.contiguous_format)

    def stop(*_: Any) -> None:
        raise TimeoutError("torch.compile took longer than its share")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(max(10, int(run.clock.left())))
    try:
        guidance.unet = torch.compile(guidance.unet, dynamic=False, backend="eager" if run.smoke else "inductor")
        started = time.perf_counter()
        first = call()
        run.sync()
        run.report.put("compile", "first call, s", round(time.perf_counter() - started, 1))
        after = run.seconds(call, 5, 2)
        run.report.put("compile", "compiled, guided call, s", after)
        run.report.put("compile", "times as fast", round(before / after, 3))
        run.report.put("compile", "difference", relative(first, plain))
    finally:
        signal.alarm(0)


SECTIONS: dict[str, Callable[[Run], None]] = {
    "environment": environment, "renderer": renderer, "steps": steps, "vae": vae, "whole": whole, "toybox": toybox,
    "tests": tests, "attention": attention, "compile": compiled,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=os.environ.get("OUT", "out/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--only", help="sections, with commas")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    run, started = Run(args), time.monotonic()
    if run.gpu and not torch.cuda.is_available():
        print("no CUDA device: use --smoke to try the script itself")
        return 2
    for name, section in SECTIONS.items():
        if name not in (args.only.split(",") if args.only else SHARE):
            continue
        if run.clock.end - time.monotonic() < 5:
            run.report.skip(name, "all")
            continue
        run.clock.begin({**SHARE, **EXTRA}[name] * args.seconds / sum(SHARE.values()) * 1.15)
        began = time.monotonic()
        with run.caught(name):
            section(run)
        run.report.data["seconds"][name] = round(time.monotonic() - began, 1)
        run.report.save()
    data = run.report.data
    print(f"\n{time.monotonic() - started:.0f} s; by section: {data['seconds']}")
    for label, found in data.get("steps", {}).items():
        finite, planned = "finite" if found["finite"] else "NOT FINITE", found["planned_gb"]
        seconds, peak = found["s_a_step"], found["peak_gb"] or 0
        print(f"  {label:45} {seconds:8.3f} s a step  {peak:6.2f} GB (planned {planned})  {finite}")
    print(f"tests: {data.get('tests', {}).get('last line')}")
    print(f"errors: {len(data['errors'])}, skipped: {len(data['skipped'])}; all in {run.report.place}")
    for error in data["errors"]:
        print(f"  {error['where']}: {error['error']} ({error['at']})")
    return 1 if data["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
