"""In a notebook: the bar that runs, what a cell shows of an asset, and nothing else."""

from __future__ import annotations

import re

import nbformat
import pytest
from nbclient import NotebookClient

RUN = 'import jsdsd\nasset = jsdsd.generate("a red mushroom", steps=2, resolution=16, views_per_step=2)'


@pytest.mark.slow
def test_a_run_in_a_notebook_shows_its_bar_and_its_object() -> None:
    cells = [nbformat.v4.new_code_cell(code) for code in (RUN, "asset")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", coalesce_streams=True, extra_arguments=["--log-level=ERROR"]
    ).execute()
    bar, shown = (cell.outputs for cell in notebook.cells)
    assert len(bar) == 1, [output.get("text") for output in bar]  # no warning beside it
    if "text" in bar[0]:
        assert re.fullmatch(r"\s*a red mushroom: .*2/2 .*\d s and 4 U-Net calls a step\]\n", bar[0].text), bar[0].text
    else:  # ipywidgets is installed
        assert "application/vnd.jupyter.widget-view+json" in bar[0].data
    assert [o.output_type for o in shown] == ["execute_result"]
    assert {"text/html", "image/png", "text/plain"} <= set(shown[0]["data"])
