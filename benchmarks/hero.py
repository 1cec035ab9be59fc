"""The README's moving picture: saved assets side by side, each turning once, as one GIF of at most 2 MB.

    python benchmarks/hero.py out/*/asset.safetensors -o docs/images/toys.gif [--columns 3] [--size 160] [--frames 30]

The assets come from `python -m jsdsd --prompts FILE -o out`; their order is that of the command line.  All frames share
one palette, without dithering, which moves; where the file is too large, the palette is halved, from 256 to 32 colours.
"""

from __future__ import annotations

import argparse
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from jsdsd import Asset

LIMIT = 2_000_000  # bytes
ROUND = 3.0  # seconds


def sheets(assets: list[Asset], columns: int, size: int, frames: int, elevation: float) -> list[Image.Image]:
    """One picture per frame, with all assets in rows of `columns`."""
    rows = math.ceil(len(assets) / columns)
    result = [Image.new("RGB", (columns * size, rows * size), "white") for _ in range(frames)]
    for i, asset in enumerate(assets):
        for sheet, picture in zip(result, asset.turntable(frames, size, elevation), strict=True):
            sheet.paste(picture, (i % columns * size, i // columns * size))
    return result


def gif(pictures: list[Image.Image], colours: int) -> bytes:
    width, height = pictures[0].size
    some = pictures[:: max(1, len(pictures) // 4)]
    strip = Image.new("RGB", (width, height * len(some)))
    for i, picture in enumerate(some):
        strip.paste(picture, (0, i * height))
    palette = strip.quantize(colours)
    table = np.asarray(palette.getpalette()).reshape(-1, 3)
    table[table.sum(1).argmax()] = 255  # the background stays white
    palette.putpalette(table.ravel().tolist())
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    data = io.BytesIO()
    milliseconds = round(1000 * ROUND / len(frames))
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, optimize=True)
    return data.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description="Saved assets side by side, turning, as one GIF of at most 2 MB")
    parser.add_argument("assets", nargs="+", type=Path, help=".safetensors files")
    parser.add_argument("-o", "--out", type=Path, default=Path("toys.gif"))
    parser.add_argument("--columns", type=int, default=3)
    parser.add_argument("--size", type=int, default=160, help="pixels of one asset (160)")
    parser.add_argument("--frames", type=int, default=30, help="of one round, which takes 3 s (30)")
    parser.add_argument("--elevation", type=float, default=20.0, help="degrees (20)")
    options = parser.parse_args()
    assets = [Asset.load(path) for path in options.assets]
    columns = min(options.columns, len(assets))
    pictures = sheets(assets, columns, options.size, options.frames, options.elevation)
    for colours in (256, 128, 64, 32):
        data = gif(pictures, colours)
        if len(data) <= LIMIT:
            break
    else:
        parser.error(f"{len(data)} bytes with 32 colours: fewer --frames or a smaller --size are needed")
    options.out.write_bytes(data)
    print(f"{options.out}: {len(data) / 1e6:.2f} MB, {colours} colours, {', '.join(a.prompt for a in assets)}")


if __name__ == "__main__":
    main()
