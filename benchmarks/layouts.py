"""Do `channels_last` and torch.compile help?  U-Net and VAE of the toybox, side by side, on this machine.

Prints the time of a call (best of ROUNDS, after a warm-up): processor time on the CPU, so run it with
OMP_NUM_THREADS=1; wall time on a GPU, `python benchmarks/layouts.py --device cuda`.  Then the largest difference from
the plain result, and the wall time of the first call, in which torch.compile compiles.  What takes longer than LIMIT
seconds is stopped.
"""

from __future__ import annotations

import argparse
import platform
import signal
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from jsdsd.sdxl.guidance import Guidance

VIEWS, ROUNDS, LIMIT = 4, 10, 600


def unet_call(guidance: Guidance) -> Callable[[], Tensor]:
    """One guided prediction for VIEWS views."""
    embeddings = guidance.encode_prompts(["a red mug, front view"] * VIEWS)
    x = torch.randn(VIEWS, *guidance.latent_shape, generator=torch.Generator().manual_seed(0)).to(guidance.device)
    return lambda: guidance.predict_eps(x, 500, embeddings, 3.0)


def vae_call(guidance: Guidance) -> Callable[[], Tensor]:
    """The gradient on VIEWS pictures through the encoder."""
    size = guidance.image_size
    rgb = torch.rand(VIEWS, size, size, 3, generator=torch.Generator().manual_seed(0)).to(guidance.device)

    def call() -> Tensor:
        picture = rgb.clone().requires_grad_()
        return torch.autograd.grad(guidance.encode_images(picture).square().sum(), picture)[0]

    return call


def plain(guidance: Guidance) -> None:
    pass


def channels_last(guidance: Guidance) -> None:
    for part in (guidance.unet, guidance.vae):
        part.to(memory_format=torch.channels_last)


def compiled(guidance: Guidance) -> None:
    guidance.unet = torch.compile(guidance.unet, dynamic=False)
    guidance.vae.encoder = torch.compile(guidance.vae.encoder, dynamic=False)


def seconds(call: Callable[[], Tensor], device: str) -> tuple[float, float, Tensor]:
    """Of the best call after the third; of the first on the wall clock; and what the calls return."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = time.perf_counter()
    call()
    first, times = time.perf_counter() - began, []
    for _ in range(ROUNDS + 2):
        started = clock()
        result = call()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(clock() - started)
    return min(times[2:]), first, result


def too_long(*_: Any) -> None:
    raise TimeoutError(f"stopped after {LIMIT} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    plainly: dict[str, tuple[float, Tensor]] = {}
    signal.signal(signal.SIGALRM, too_long)
    for name, make in {"U-Net, one call": unet_call, "VAE, forward and backward": vae_call}.items():
        for change in (plain, channels_last, compiled):
            guidance: Any = Guidance.load("toybox", device=device)
            change(guidance)
            signal.alarm(LIMIT)
            try:
                took, first, result = seconds(make(guidance), device)
            except TimeoutError as stopped:
                print(f"{change.__name__:14} {name:26} {stopped}", flush=True)
                continue
            finally:
                signal.alarm(0)
            before, expected = plainly.setdefault(name, (took, result))
            apart = float((result - expected).abs().max() / expected.abs().max())
            ratio = f"x {before / took:.2f}  differs {apart:.0e}  first call {first:.1f} s"
            print(f"{change.__name__:14} {name:26} {1000 * took:7.1f} ms  {ratio}", flush=True)


if __name__ == "__main__":
    main()
