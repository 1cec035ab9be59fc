"""Facts and tensors as one .safetensors file, with a digest that notices any damage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MARK = "jsdsd.asset"  # the one metadata key (the library would write two in any order); its value is JSON: the facts
VERSION = 2  # of that JSON and the tensors' names; raised when an older jsdsd could not read the file.  1 had no digest


def digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 in hexadecimal over `text` and every tensor's name, type, shape and bytes, in the order of the names."""
    total = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        x = tensors[name].detach().cpu().contiguous()
        total.update(f"\n{name} {x.dtype} {tuple(x.shape)}\n".encode())
        total.update(x.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def pack(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """The file's content.  facts: plain JSON values."""
    import safetensors.torch

    text = json.dumps({"version": VERSION, "sha256": "", **facts})
    filled = text.replace('""', f'"{digest(tensors, text)}"', 1)
    return safetensors.torch.save(dict(tensors), {MARK: filled})


def unpack(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor], bool]:
    """The facts, the tensors, and whether they were checked: False for a file of version 1, which has no digest.

    Raises FileNotFoundError, and ValueError for a file that is damaged, something else or of a newer version.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no asset file "{path}"')
    way_out = "copy it again from its source, or generate the asset again"
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(MARK)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ValueError(f'"{path}" is damaged or not a safetensors file ({error}); {way_out}') from error
    if text is None:
        raise ValueError(
            f'"{path}" holds tensors but was not written by Asset.save; model weights, for one, are no assets'
        )
    try:
        facts = json.loads(text)
        version, checksum = facts["version"], facts.pop("sha256", None)
        if type(version) is not int or version < 1 or not isinstance(checksum, (str, type(None))):
            raise ValueError(f"version {version!r}, digest {checksum!r}")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f'"{path}" is an asset file with a part missing or broken ({error}); {way_out}') from error
    if version > VERSION:
        raise ValueError(f'"{path}" has asset format {version}, but this jsdsd reads up to {VERSION}: upgrade jsdsd')
    if checksum is None and version > 1:
        raise ValueError(f'"{path}" is damaged: its SHA-256 digest is missing; {way_out}')
    if checksum is not None and checksum != digest(tensors, text.replace(checksum, "", 1)):
        raise ValueError(f'"{path}" is damaged: its content does not match its SHA-256 digest; {way_out}')
    return facts, tensors, checksum is not None
