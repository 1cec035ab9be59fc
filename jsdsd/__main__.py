"""`python -m jsdsd "a red mushroom"`: from a sentence to files, on the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pipeline.asset import Asset

OK, FAILED_RUN, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

FILES = {  # what is written, and what opens it; the last is written first
    "viewer.html": "turn it in any web browser, no network needed",
    "asset.glb": "Blender, PowerPoint, https://gltf-viewer.donmccurdy.com",
    "turntable.gif": "any picture viewer or browser",
    "views.png": "8 views, any picture viewer",
    "run.json": "any text editor: settings, versions, one record a step",
    "asset.safetensors": "jsdsd.Asset.load, in Python: all of it",
}

EXAMPLES = """examples:
  python -m jsdsd "a red mushroom"                       embedded model, about a minute on a laptop
  python -m jsdsd "a blue car" -o car --seed 3           another seed, another folder
  python -m jsdsd "a duck" --num-assets 4                four seeds, in out/seed-0 ... out/seed-3
  python -m jsdsd "a yellow duck" --objective sds        the classic objective, to compare
  python -m jsdsd "a zebra" --model sdxl --device cuda   Stable Diffusion XL; needs a GPU and downloads 7 GB once

exit codes: 0 done, 1 the run failed, 2 something about the input is wrong, 130 stopped with Ctrl-C
"""


def parser() -> argparse.ArgumentParser:
    """The command line; its help is the reference."""
    p = argparse.ArgumentParser(
        prog="python -m jsdsd", description="Make a 3D object from a sentence.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    add = p.add_argument
    add("prompt", metavar="PROMPT", help='what to make, in quotes: "a red mushroom"')
    add("-o", "--output", metavar="DIR", type=Path, default=Path("out"), help="folder for the files (default: out)")
    add("--model", default="toybox", help='"toybox" (embedded), "sdxl", a hub id or a folder (default: toybox)')
    add("--objective", default="jsd", help="jsd, sdi or sds (default: jsd)")
    add("--seed", type=int, default=0, help="same seed and machine, same object (default: 0)")
    add("--steps", type=int, metavar="N", help="optimiser steps (default: depends on model and objective)")
    add("--num-assets", type=int, default=1, metavar="N", help="objects, seeds SEED, SEED+1, ... (default: 1)")
    add("--negative-prompt", metavar="TEXT", help="what to move away from (default: nothing)")
    scale = "how closely to follow PROMPT; 1 = not more than trained (default: 3 for the toybox, else 7.5)"
    add("--guidance-scale", type=float, metavar="S", help=scale)
    add("--views-per-step", type=int, metavar="N", help="pictures looked at in each step (default: depends on model)")
    add("--resolution", type=int, metavar="R", help="voxels along each axis (default: depends on model)")
    add("--device", help="cpu, cuda, cuda:1, mps (default: the CPU for the toybox, else a GPU where there is one)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="of the U-Net (default: depends on the device)")
    add("--quiet", action="store_true", help="no progress bar")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = parser().parse_args(arguments)
    try:
        if not args.prompt.strip():
            raise ValueError('the prompt is empty: say what to make, as "a red mushroom"')
        if args.num_assets < 1:
            raise ValueError(f"--num-assets must be at least 1, got {args.num_assets}")
        folders = [args.output]
        if args.num_assets > 1:
            folders = [args.output / f"seed-{args.seed + i}" for i in range(args.num_assets)]
        from .pipeline.asset import check_writable

        for folder in folders:
            for name in FILES:
                check_writable(folder / name)
        import torch

        import jsdsd

        made = jsdsd.generate(
            args.prompt, model=args.model, objective=args.objective, seed=args.seed, steps=args.steps,
            num_assets=args.num_assets, negative_prompt=args.negative_prompt, guidance_scale=args.guidance_scale,
            views_per_step=args.views_per_step, resolution=args.resolution, device=args.device,
            dtype=getattr(torch, args.dtype) if args.dtype else None, progress=not args.quiet,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        return _fail(error, BAD_INPUT)
    except FloatingPointError as error:
        _save_finished(error, folders)
        return _fail(error, FAILED_RUN)
    except KeyboardInterrupt as stop:
        done = _save_finished(stop, folders)
        return _stopped(getattr(stop, "asset", None), folders[min(done, len(folders) - 1)])
    try:
        for asset, folder in zip(made if isinstance(made, list) else [made], folders, strict=True):
            save_all(asset, folder)
    except (ValueError, OSError) as error:
        return _fail(error, FAILED_RUN)
    except KeyboardInterrupt:
        print("\nStopped while the files were written.", file=sys.stderr)
        return INTERRUPTED
    return OK


def save_all(asset: Asset, folder: Path) -> None:
    """Write every file in FILES into `folder` and print where it is and what opens it.

    The asset itself goes first and the meshes last: an unfinished scene may have no surface yet.
    """
    for name in reversed(FILES):
        if name == "run.json":
            (folder / name).write_text(json.dumps(asset.facts(), indent=1) + "\n", encoding="utf-8")
        else:
            asset.save(folder / name)
    width = max(len(str(folder / name)) for name in FILES)
    print(f"\n{asset.prompt}:")
    for name, use in FILES.items():
        print(f"  {folder / name!s:{width}}  {use}")


def _save_finished(stop: BaseException, folders: Sequence[Path]) -> int:
    """Save the assets that were whole before the run stopped; returns how many."""
    finished = getattr(stop, "finished", [])
    for asset, folder in zip(finished, folders, strict=False):
        save_all(asset, folder)
    return len(finished)


def _fail(error: BaseException, code: int) -> int:
    print(f"jsdsd: {error}", file=sys.stderr)
    return code


def _stopped(asset: Asset | None, folder: Path) -> int:
    if asset is None:
        print("\nStopped before there was anything to save.", file=sys.stderr)
        return INTERRUPTED
    steps = len(asset.history)
    print(f"\nStopped after {steps} steps. Saving what there is (Ctrl-C again to leave it) ...", file=sys.stderr)
    try:
        save_all(asset, folder)
    except ValueError as error:
        print(f"jsdsd: {folder / 'asset.safetensors'} is saved, but not all of the rest: {error}", file=sys.stderr)
    except OSError as error:
        print(f"jsdsd: could not save: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("Left.", file=sys.stderr)
    return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
