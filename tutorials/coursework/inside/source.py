"""What stands in a student's text, without running it."""

from __future__ import annotations

import ast
import tokenize
import zlib
from collections.abc import Sequence
from io import StringIO
from keyword import iskeyword
from typing import Any


def look(cells: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Of a text, not run: its functions, True for a blank, whom they call; names used of jsdsd; a fingerprint."""
    functions: dict[str, bool] = {}
    calls: dict[str, list[str]] = {}
    used: set[str] = set()
    for name, text in cells:
        try:
            tree = ast.parse(text, name)
        except (SyntaxError, ValueError):
            if len(cells) == 1:
                raise
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                functions[node.name] = is_blank(node)
                names = {x.func.id for x in ast.walk(node) if isinstance(x, ast.Call) and isinstance(x.func, ast.Name)}
                calls[node.name] = sorted(names)
            elif isinstance(node, ast.Assign | ast.ImportFrom | ast.Import):
                bound = node.targets if isinstance(node, ast.Assign) else node.names
                functions |= {getattr(x, "id", "") or getattr(x, "asname", "") or "": False for x in bound}
        for part in ast.walk(tree):
            if isinstance(part, ast.ImportFrom) and (part.module or "").split(".")[0] == "jsdsd":
                used |= {x.name for x in part.names}
            elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "jsdsd":
                used.add(part.attr)
    prints = fingerprint("\n".join(t for _, t in cells))
    return {"functions": functions, "calls": calls, "used": sorted(used), "print": prints}


def is_blank(function: ast.FunctionDef) -> bool:
    """Untouched: nothing but a docstring and `raise NotImplementedError` or `...`."""
    rest = function.body[1:] if ast.get_docstring(function) is not None else function.body
    text = ast.unparse(rest[0]) if len(rest) == 1 else ""
    return not rest or text == "..." or text.startswith("raise NotImplementedError")


def fingerprint(text: str, length: int = 12, most: int = 4000) -> list[int]:
    """Hashes of all runs of `length` tokens, whatever the names, strings and comments are."""
    tokens = []
    try:
        for token in tokenize.generate_tokens(StringIO(text).readline):
            if token.type == tokenize.NAME:
                tokens.append(token.string if iskeyword(token.string) else "name")
            elif token.type in (tokenize.OP, tokenize.NUMBER):
                tokens.append(token.string)
    except (tokenize.TokenError, SyntaxError):
        pass
    runs = {" ".join(tokens[i : i + length]) for i in range(len(tokens) - length + 1)}
    return sorted(zlib.crc32(x.encode()) for x in runs)[:most]


def without_magics(cell: str) -> str:
    """A notebook's cell without IPython's own lines; line numbers stay.  A cell for another language is empty."""
    lines = cell.split("\n")
    first = lines[0].strip()
    if first.startswith("%%") and first.split()[0] not in ("%%time", "%%timeit", "%%capture", "%%prun"):
        return ""
    try:
        ast.parse(cell)
        return cell
    except (SyntaxError, ValueError):
        return "\n".join(_pass_for_magic(line) for line in lines)


def _pass_for_magic(line: str) -> str:
    bare = line.strip()
    magic = bare.startswith(("%", "!", "?")) or (bare.endswith("?") and not bare.startswith("#"))
    return line[: len(line) - len(line.lstrip())] + "pass" if magic else line
