"""A run as an HTML table, for notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

SETTINGS = ("seed", "model", "objective", "guidance_scale", "negative_prompt", "views_per_step", "resolution", "device")


def run_table(prompt: str, config: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """What was asked for, with which settings, and what it took: the rows that are known, as an HTML table."""
    rows = {"prompt": prompt} | {name: config[name] for name in SETTINGS if config.get(name) is not None}
    if history:
        rows["steps"] = f"{len(history)} of {config['steps']}" if "steps" in config else str(len(history))
        calls, seconds = (
            [record[name] for record in history if isinstance(record.get(name), (int, float))]
            for name in ("unet_calls", "seconds")
        )
        if calls:
            rows["U-Net calls"] = f"{sum(calls)}, {sum(calls) / len(calls):.3g} a step"
        if seconds:
            rows["time"] = f"{sum(seconds):.1f} s, {sum(seconds) / len(seconds):.3g} s a step"
    cells = (
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{''.join(cells)}</table>"
