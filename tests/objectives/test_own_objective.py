"""The page "your own objective" does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from jsdsd.objectives import SDS, check_for_asset, named_objective
from jsdsd.sandbox import ring
from jsdsd.sandbox.__main__ import main

PAGE = (Path(__file__).parents[2] / "docs/own_objective.md").read_text(encoding="utf-8")
CODE, USE = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def test_the_pages_code_runs_here_and_from_the_sandboxs_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"python -m jsdsd\.sandbox (.*)", PAGE)
    assert main([*command.split(), "--steps", "5", "--particles", "8"]) == 0
    assert "mine:TwoNoises" in capsys.readouterr().out
    names: dict[str, object] = {}
    exec(CODE + USE, names)
    objective = named_objective("mine:TwoNoises", {})
    check_for_asset(objective)
    x0 = torch.zeros(3, 2)
    step = objective.gradient(ring(), x0, 500, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    two = [SDS().gradient(ring(), x0, 500, generator).grad for _ in range(2)]
    assert torch.allclose(step.grad, (two[0] + two[1]) / 2) and step.unet_calls == 2
