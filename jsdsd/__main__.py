"""`python -m jsdsd "a red mushroom"`: from a sentence, or a file of them, to files; on the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .run import Run

if TYPE_CHECKING:
    from .jobs import Job
    from .scene.asset import Asset
    from .sdxl.guidance import Guidance

OK, FAILED_RUN, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

FILES = {  # what is written, and what opens it; the last is written first
    "viewer.html": "turn it in any web browser, no network needed",
    "asset.glb": "Blender, PowerPoint, https://gltf-viewer.donmccurdy.com",
    "turntable.gif": "any picture viewer or browser",
    "views.png": "8 views, any picture viewer",
    "run.json": "any text editor: settings, versions, one record a step",
    "asset.safetensors": "jsdsd.Asset.load, in Python: all of it",
}
OBJECTIVES = ("seeded", "jsd", "sdi", "sds", "two_sided", "local_jsd", "csd")  # those of objectives/named.py
T3BENCH_FILES = ("asset.safetensors", "save/it*-export/model.obj", "run.json")

EXAMPLES = """examples:
  python -m jsdsd "a red mushroom"                       embedded model, about a minute on a laptop
  python -m jsdsd "a blue car" -o car --seed 3           another seed, another folder
  python -m jsdsd "a duck" --num-assets 4                four seeds, in out/seed-0 ... out/seed-3
  python -m jsdsd "a yellow duck" --objective sds        the classic objective, to compare
  python -m jsdsd "a zebra" --model sdxl --device cuda   Stable Diffusion XL; needs a GPU and downloads 7 GB once
  python -m jsdsd --resume out --steps 200               go on with what is in out/, for more steps
  python -m jsdsd --prompts list.txt -o many             one folder per prompt and seed; repeat it to go on
  accelerate launch -m jsdsd --prompts list.txt -o many  the same work, split over all GPUs

exit codes: 0 done, 1 a run failed, 2 something about the input is wrong, 130 stopped with Ctrl-C; with several
processes failing prompts are named and counted, but the code is 0
"""


def parser() -> argparse.ArgumentParser:
    """The command line; its help is the reference."""
    p = argparse.ArgumentParser(
        prog="python -m jsdsd", description="Make a 3D object from a sentence.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("prompt", metavar="PROMPT", nargs="?", help='what to make, in quotes: "a red mushroom"')
    what.add_argument("--prompts", metavar="FILE", type=Path, help="a text file, one prompt a line; skips what is done")
    what.add_argument("--resume", metavar="DIR", type=Path, help="go on with the runs in DIR; --steps may add to them")
    add = p.add_argument
    add("-o", "--output", metavar="DIR", type=Path, default=Path("out"), help="folder for the files (default: out)")
    add("--model", default="toybox", help='"toybox", "sdxl", a hub id, a folder or a .safetensors file')
    says = f"{', '.join(OBJECTIVES)} or your own module:Name (default: seeded for the toybox, else jsd)"
    add("--objective", type=objective_name, metavar="NAME", help=says)
    add("--num-assets", type=int, default=1, metavar="N", help="objects, seeds SEED, SEED+1, ... (default: 1)")
    for name, default, says, option in Run.options():
        if option.get("action") == "bool":
            option = {**option, "action": argparse.BooleanOptionalAction}
        said = says if default is None else f"{says} (default: {default:g})"
        add(f"--{name.replace('_', '-')}", default=default, help=said, **option)
    add("--device", help="cpu, cuda, cuda:1, mps (default: the CPU for the toybox, else a GPU where there is one)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="of the U-Net (default: depends on the device)")
    add("--memory", type=int, metavar="GB", help="SDXL's sizes for a GPU of 8, 12, 16, 24, 40, 80 GB (default: yours)")
    add("--compile", action="store_true", help="compile the U-Net: minutes at first, faster steps after that")
    add("--layout", choices=("plain", "t3bench"), default="plain", help="where files go (docs/t3bench.md)")
    add("--method", default="jsdsd", metavar="NAME", help="of the t3bench layout: the method's name")
    add("--group", default="single", choices=("single", "surr", "multi"), help="of the t3bench layout: which prompts")
    add("--version", action="version", version=f"jsdsd {__version__}")
    add("--quiet", action="store_true", help="no progress bar")
    return p


def objective_name(text: str) -> str:
    """One of OBJECTIVES, or module:Name, which `planned` looks up."""
    if ":" not in text and text.lower() not in OBJECTIVES:
        raise argparse.ArgumentTypeError(f"'{text}' is none of {', '.join(OBJECTIVES)}, nor module:Name")
    return text if ":" in text else text.lower()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = parser().parse_args(arguments)
    codes: list[int] = []

    def failed(job: Job, error: Exception) -> None:
        codes.append(FAILED_RUN if isinstance(error, FloatingPointError) else BAD_INPUT)
        who = f"{job.run.prompt}, seed {job.run.seed}: " if args.prompts else ""
        print(f"jsdsd: {who}{error}", file=sys.stderr)

    running: list[Job] = []
    try:
        from . import generation, jobs
        from .files import check_writable

        rank, count, local = jobs.process()
        everything = planned(args)
        mine = everything[rank::count]
        for job in [job for job in mine if args.resume and job.complete(job.run.steps)]:
            print(f"{job.folder}: finished, {job.run.steps} steps; a larger --steps adds to them")
            mine.remove(job)
        for job in mine:
            for name in job.files:
                if "*" not in name:
                    check_writable(job.folder / name)
        loaded: dict[tuple[object, ...], Guidance] = {}

        def load(job: Job) -> Guidance:
            return guidance(loaded, job, args.device, local, args.compile)

        if not args.resume and not all(args.prompts and job.finished for job in mine):
            # a word that the model was never taught is told before any work, wherever in the list it stands
            generation.check_language(load(mine[0]), [job.run for job in everything])

        def make(job: Job, model: Guidance) -> Asset:
            import jsdsd

            running[:] = [job]
            return jsdsd.generate(
                job.run.prompt, model=model, objective=job.objective, **job.run.arguments(),
                progress=not args.quiet and rank == 0, checkpoint=job.checkpoint, resume=not args.prompt,
            )  # type: ignore[return-value]  # fmt: skip

        save = jobs.save_t3bench if args.layout == "t3bench" else save_all
        jobs.work(mine, load, make, save, skip_done=not args.prompt, failed=failed)
    except (ValueError, OSError, MemoryError) as error:
        print(f"jsdsd: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as stop:
        return _stopped(getattr(stop, "asset", None), running[0] if running else None, again=not args.prompt)
    if len(codes) > 1 or args.prompts:
        print(f"jsdsd: {len(mine) - len(codes)} of {len(mine)} done, {len(codes)} failed", file=sys.stderr)
    if count > 1:
        return OK  # a launcher would end the other processes, which have their own share to finish
    return max(codes, default=OK) if len(mine) == 1 else FAILED_RUN if codes else OK


def planned(args: argparse.Namespace) -> list[Job]:
    """What the command asks for, as one job per asset.  ValueError or OSError for what cannot be done."""
    from . import jobs
    from .objectives.named import OBJECTIVES as KNOWN
    from .objectives.named import named

    if args.resume:
        allowed = ("resume", "steps", "device", "compile", "layout", "quiet")
        plain = vars(parser().parse_args(["--resume", ""]))
        if changed := [n for n, value in plain.items() if n not in allowed and getattr(args, n) != value]:
            given = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
            raise ValueError(f"--resume goes on with a run as it was begun, --steps aside: leave out {given}")
        files = T3BENCH_FILES if args.layout == "t3bench" else tuple(FILES)
        return jobs.found_jobs(args.resume, args.steps, files, KNOWN)
    if args.num_assets < 1:
        raise ValueError(f"--num-assets must be at least 1, got {args.num_assets}")
    if args.objective and ":" in args.objective:
        named(args.objective)
    said = {name: getattr(args, name) for name, *_ in Run.options()}
    run = Run("unsaid", model=args.model, dtype=args.dtype, memory_gb=args.memory, **said)
    made = []
    for prompt in jobs.read_prompts(args.prompts) if args.prompts else [args.prompt]:
        for seed in range(run.seed, run.seed + args.num_assets):
            files = tuple(FILES)
            if args.layout == "t3bench":
                folder, files = jobs.t3bench_folder(args.output, args.method, args.group, prompt, seed), T3BENCH_FILES
            elif args.prompts:
                folder = args.output / jobs.folder_name(prompt) / f"seed-{seed}"
            else:
                folder = args.output / f"seed-{seed}" if args.num_assets > 1 else args.output
            made.append(jobs.Job(replace(run, prompt=prompt, seed=seed), folder, files, args.objective))
    return made


def guidance(
    loaded: dict[tuple[object, ...], Guidance], job: Job, device: str | None, local: int, compiled: bool
) -> Guidance:
    """The job's model, loaded once; each process of a machine takes its own GPU."""
    wanted = model_name, dtype_name, preset = job.run.model or "", job.run.dtype, job.run.memory_gb
    if wanted not in loaded:
        import torch

        from .sdxl.device import default_device, device_errors_in_words
        from .sdxl.guidance import Guidance

        place = device or default_device(model_name)
        if place == "cuda" and (gpus := torch.cuda.device_count()):
            place = f"cuda:{local % gpus}"
        loaded.clear()  # one at a time in memory
        dtype = getattr(torch, dtype_name.removeprefix("torch.")) if dtype_name else None
        with device_errors_in_words():
            loaded[wanted] = model = Guidance.load(model_name, device=place, dtype=dtype, preset=preset)
        if compiled:
            model.unet = torch.compile(model.unet)
    return loaded[wanted]


def save_all(asset: Asset, folder: Path) -> None:
    """Write every file in FILES into `folder` and print where it is and what opens it.

    The asset itself goes first and the meshes last: an unfinished scene may have no surface yet.
    """
    from .jobs import save_record

    for name in reversed(FILES):
        if name == "run.json":
            save_record(asset, folder)
        else:
            asset.save(folder / name)
    width = max(len(str(folder / name)) for name in FILES)
    print(f"\n{asset.prompt}:")
    for name, use in FILES.items():
        print(f"  {folder / name!s:{width}}  {use}")


def _stopped(asset: Asset | None, job: Job | None, again: bool) -> int:
    """again: the same command goes on, so there is nothing to save besides the checkpoint."""
    if asset is None or job is None:
        print("\nStopped before there was anything to save.", file=sys.stderr)
        return INTERRUPTED
    steps, folder = len(asset.history), job.folder
    if again:
        print(f"\nStopped after {steps} steps of {folder}. The same command goes on.", file=sys.stderr)
        return INTERRUPTED
    print(f"\nStopped after {steps} steps. Saving what there is (Ctrl-C again to leave it) ...", file=sys.stderr)
    try:
        save_all(asset, folder)
    except ValueError as error:
        print(f"jsdsd: {folder / 'asset.safetensors'} is saved, but not all of the rest: {error}", file=sys.stderr)
    except OSError as error:
        print(f"jsdsd: could not save: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("Left.", file=sys.stderr)
    if job.checkpoint.exists():
        print(f"To go on: python -m jsdsd --resume {folder}", file=sys.stderr)
    return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
