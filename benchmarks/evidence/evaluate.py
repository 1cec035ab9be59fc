"""Measure the toybox: its prior's pictures, and the 3D toys that `generate` makes of it, against the known truth.

python -m benchmarks.evidence.evaluate prior  # 25 DDIM steps, guidance 3: all kinds x colours, and colours of "a mug"
python -m benchmarks.evidence.evaluate assets # all kinds x seeds 0, 1, 2: judge, silhouette IoU, colour error, sheet
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from PIL import Image
from torch import Tensor

from jsdsd.generation import generate
from jsdsd.objectives.divergences import JensenShannon
from jsdsd.scene.asset import Asset
from jsdsd.scene.cameras import orbit
from jsdsd.scene.renderer import render
from jsdsd.scene.voxels import VoxelGrid
from jsdsd.sdxl.guidance import Guidance
from jsdsd.toybox.captions import Label, caption
from jsdsd.toybox.kinds import COLOURS, KINDS, ORIENTED
from jsdsd.toybox.scenes import Toy

from .judge import HEADS, Judge, load_judge
from .measures import against, eight_views, seen, true_scene


@torch.no_grad()
def sample(
    guidance: Guidance, prompts: list[str], *, steps: int = 25, guidance_scale: float = 3.0, seed: int = 0
) -> Tensor:
    """Pictures (N, 64, 64, 3) in [0, 1] of the prior by deterministic DDIM (arXiv 2010.02502), diffusers' scheduler."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(guidance.pipe.scheduler.config)
    scheduler.set_timesteps(steps)
    generator, pictures = torch.Generator().manual_seed(seed), []
    for start in range(0, len(prompts), 64):
        part = prompts[start : start + 64]
        embeddings = guidance.encode_prompts(part)
        x = torch.randn(len(part), *guidance.latent_shape, generator=generator)
        for t in scheduler.timesteps:
            x = scheduler.step(guidance.predict_eps(x, t, embeddings, guidance_scale), t, x).prev_sample
        pictures.append(guidance.decode_latents(x))
    return torch.cat(pictures)


def prior(guidance: Guidance, judge: Judge, per_pair: int = 4) -> dict[str, float]:
    """Agreement of judge and prompt over all kinds x colours, and `colour_histograms`."""
    pairs = [(k, c) for k in KINDS for c in COLOURS for _ in range(per_pair)]
    found = judge.judge(sample(guidance, [caption(Label((p,))) for p in pairs]))
    kind = found["kind"].argmax(1) == torch.tensor([HEADS["kind"].index(k) for k, _ in pairs])
    colour = found["colour"].argmax(1) == torch.tensor([HEADS["colour"].index(c) for _, c in pairs])
    wrong = [pairs[i] for i in (~(kind & colour)).nonzero()[:, 0].tolist()]
    print(
        "most often wrong:",
        {
            k: sum(w[0] == k for w in wrong)
            for k in sorted({w[0] for w in wrong}, key=lambda k: -sum(w[0] == k for w in wrong))
        },
    )
    result = {
        "kind": kind.float().mean().item(),
        "colour": colour.float().mean().item(),
        "both": (kind & colour).float().mean().item(),
    }
    result |= colour_histograms(guidance, judge)
    return result


def colour_histograms(guidance: Guidance, judge: Judge, count: int = 256) -> dict[str, float]:
    """JSD in nats to uniform of the colours of `count` samples, at guidance 1 (the prior itself) and 3 (sharpened)."""
    result = {}
    for scale in (1.0, 3.0):
        for prompt in ("a mug", "a ball", "a duck"):
            pictures = sample(guidance, [prompt] * count, guidance_scale=scale)
            share = torch.bincount(judge.judge(pictures)["colour"].argmax(1), minlength=len(COLOURS)).double() / count
            uniform = torch.full_like(share, 1 / len(COLOURS))
            result[f'colour JSD, "{prompt}", guidance {scale:g}'] = float(JensenShannon().discrete(uniform, share))
            print(prompt, scale, dict(zip(COLOURS, (share * count).round().int().tolist(), strict=True)), flush=True)
    return result


def against_truth(grid: VoxelGrid, kind: str, colour: str) -> dict[str, float]:
    """`measures.against` the true toy."""
    return against(seen(grid), true_scene((Toy(kind, colour),)))


def judged(judge: Judge, grid: VoxelGrid, kind: str, colour: str) -> dict[str, float]:
    """Probability-averaged verdict on eight views, 1 where right; and the share of views rightly named (NaN for a kind
    whose pictures do not tell the view)."""
    found = judge.judge(eight_views(grid)[0])
    verdicts = {
        f"{h}_right": float(found[h].mean(0).argmax() == HEADS[h].index(n))
        for h, n in (("kind", kind), ("colour", colour))
    }
    views = torch.tensor([HEADS["view"].index(name) for name in HEADS["view"][:8]])
    share = (found["view"].argmax(1) == views).float().mean().item() if kind in ORIENTED else float("nan")
    return verdicts | {"view_share": share}


@dataclass(frozen=True)
class Measured:
    """One asset's numbers."""

    kind: str
    colour: str
    seed: int
    numbers: dict[str, float]

    def file(self, folder: Path) -> Path:
        return folder / f"{self.kind.replace(' ', '_')}_{self.seed}.safetensors"


def assets(
    guidance: Guidance,
    judge: Judge,
    out: Path,
    kinds: Sequence[str],
    seeds: Sequence[int],
    objective: str | None = None,
    steps: int | None = None,
    latent: bool | None = None,
) -> list[Measured]:
    """Generate, measure and save every kind x seed; the colour rotates.  Toys that `out` holds already are reused."""
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Measured] = []
    for kind in kinds:
        for seed in seeds:
            colour = list(COLOURS)[(list(KINDS).index(kind) + 3 * seed) % len(COLOURS)]
            path = Measured(kind, colour, seed, {}).file(out)
            if not path.exists():
                prompt = caption(Label(((kind, colour),)))
                made = generate(
                    prompt, model=guidance, objective=objective, steps=steps, seed=seed, latent=latent, progress=False
                )
                assert isinstance(made, Asset)
                made.save(path)
            asset = Asset.load(path)
            numbers = judged(judge, asset.grid, kind, colour) | against_truth(asset.grid, kind, colour)
            seconds = sum(record["seconds"] for record in asset.history)
            rows.append(Measured(kind, colour, seed, numbers | {"seconds": seconds}))
            print(kind, colour, seed, *(f"{k} {v:.3f}" for k, v in rows[-1].numbers.items()), flush=True)
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", "colour", "seed", *rows[0].numbers])
        writer.writerows([r.kind, r.colour, r.seed, *(f"{v:.4f}" for v in r.numbers.values())] for r in rows)
    return rows


def contact_sheet(out: Path, rows: Sequence[Measured], path: Path, columns: int = 6, size: int = 96) -> None:
    """Two views of every asset of `rows`, 20 and 110 degrees from the front, in their order."""
    cells = []
    for row in rows:
        with torch.no_grad():
            two = render(Asset.load(row.file(out)).grid, orbit([20.0, 110.0], 20.0), size, 0.95)
        cells.append(torch.cat(list(two.rgb.clamp(0, 1)), 1))
    cells += [torch.ones_like(cells[0])] * (-len(cells) % columns)
    lines = [torch.cat(cells[i : i + columns], 1) for i in range(0, len(cells), columns)]
    Image.fromarray((torch.cat(lines) * 255).round().byte().numpy()).save(path)


def summary(rows: Sequence[Measured]) -> dict[str, float]:
    """Means over all assets, and the mean IoU of every kind, the worst first."""
    by_kind: dict[str, list[float]] = {}
    for row in rows:
        by_kind.setdefault(row.kind, []).append(row.numbers["iou"])
    kinds = sorted((fmean(v), k) for k, v in by_kind.items())
    columns = {name: [row.numbers[name] for row in rows] for name in rows[0].numbers}
    means = {name: fmean(v for v in column if not math.isnan(v)) for name, column in columns.items()}
    return means | {f"iou, {kind}": value for value, kind in kinds}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("prior", "assets"))
    parser.add_argument("--model", default="toybox", help="a toybox folder (default: the embedded one)")
    parser.add_argument("--out", type=Path, default=Path("out/evaluate"))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--objective", help="default: that of generate")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--latent", action="store_true", help="a grid of latents, without the VAE (docs/gpu.md)")
    options = parser.parse_args()
    guidance, judge = Guidance.load(options.model), load_judge()
    if options.what == "prior":
        found = prior(guidance, judge)
    else:
        rows = assets(
            guidance,
            judge,
            options.out,
            options.kinds,
            options.seeds,
            objective=options.objective,
            steps=options.steps,
            latent=options.latent,
        )
        contact_sheet(options.out, rows, options.out / "contact_sheet.png")
        found = summary(rows)
    print("\n".join(f"{name}: {value:.4f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
