"""How many of 1,500 damaged asset files are noticed?

    python benchmarks/damaged_assets.py [--count 1500] [--seed 0]

Each file is a saved asset with one damage of six kinds, at a random place: a bit flipped, a byte replaced, 64 bytes
zeroed, a byte missing, a byte too many, the end cut off; half of them in the header, which holds the facts.
`Asset.load` must refuse each with a ValueError that names the file, or give back exactly what was saved; else exit 1.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from pathlib import Path

import torch

from jsdsd import Asset, VoxelGrid


def damaged(data: bytes, kind: str, at: int, rng: random.Random) -> bytes:
    """`data` with one damage at byte `at`."""
    before, here, after = data[:at], data[at], data[at + 1 :]
    if kind == "bit flipped":
        return before + bytes([here ^ 1 << rng.randrange(8)]) + after
    if kind == "byte replaced":
        return before + bytes([(here + rng.randrange(1, 256)) % 256]) + after
    if kind == "64 bytes zeroed":
        return before + bytes(min(64, len(data) - at)) + data[at + 64 :]
    if kind == "byte missing":
        return before + after
    if kind == "byte too many":
        return before + bytes([rng.randrange(256), here]) + after
    return before  # the end cut off


KINDS = ("bit flipped", "byte replaced", "64 bytes zeroed", "byte missing", "byte too many", "end cut off")


def outcome(path: Path, original: Asset) -> str:
    try:
        asset = Asset.load(path)
    except ValueError as error:
        return "refused" if str(path) in str(error) else "refused without the file's name"
    except Exception as error:  # what must not happen is counted
        return f"broke with {type(error).__name__}"
    same = asset.facts() == original.facts() and len(asset.grid.levels) == len(original.grid.levels)
    same &= all(torch.equal(a, b) for a, b in zip(asset.grid.levels, original.grid.levels, strict=False))
    return "accepted unchanged" if same and not asset.unchecked else "accepted CHANGED"


def main() -> int:
    parser = argparse.ArgumentParser(description="How many damaged asset files are noticed?")
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    history = [{"step": i, "t": 980 - 9 * i, "grad_norm": 1 / (i + 1), "unet_calls": 2} for i in range(100)]
    noise = torch.Generator().manual_seed(options.seed)
    grid = VoxelGrid([torch.randn(4, r, r, r, generator=noise) for r in (5, 10, 20, 40)])
    original = Asset(grid, 'a "größer" ball', {"seed": 0, "k": [1e-7, None]}, history)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        data = original.save(Path(folder) / "asset.safetensors").read_bytes()
        header = 8 + int.from_bytes(data[:8], "little")
        path = Path(folder) / "damaged.safetensors"
        for number in range(options.count):
            kind = KINDS[number % len(KINDS)]
            at = rng.randrange(header if number // len(KINDS) % 2 else len(data))
            changed = damaged(data, kind, at, rng)
            assert changed != data
            path.write_bytes(changed)
            counts[kind][outcome(path, original)] += 1
    total = sum(counts.values(), Counter())
    for kind, count in [*counts.items(), ("all", total)]:
        print(f"{kind:16}", ", ".join(f"{n} {what}" for what, n in count.most_common()))
    return int(any(what not in ("refused", "accepted unchanged") for what in total))


if __name__ == "__main__":
    raise SystemExit(main())
