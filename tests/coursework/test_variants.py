"""Every problem has a variant; its statement differs, its reference is another, and the usual answer is recognised."""

from __future__ import annotations

from pathlib import Path

import grade
import pytest
from coursework import SETS
from coursework.variants import UNCHANGED, VARIANTS, chosen, statement, varied
from coursework.verdict import diagnose, twin

PROBLEMS = {p.name: p for s in SETS for p in s.problems}


def variant_of(name: str) -> int:
    return next(n for n in range(1, 1000) if name in chosen(n))


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_variant_asks_for_something_else(name: str, exercises: Path) -> None:
    variant = variant_of(name)
    asked = {p.name: p for s in SETS for p in varied(s, variant).problems}[name]
    assert diagnose(asked, twin(asked, asked.reference, 4), 4).status == "passed"
    verdict = diagnose(asked, twin(asked, PROBLEMS[name].reference, 4), 4)
    assert verdict.what.endswith(f": {UNCHANGED}")
    texts = [(exercises / f"ex{n}.py").read_text(encoding="utf-8") for n in (1, 2, 3)]
    (text,) = (t for t in texts if f"\ndef {name}(" in t)
    changed = statement(text, variant)
    for old, new in next(v for v in VARIANTS if v.problem == name).edits:
        assert old not in changed and new in changed


def test_variants_are_drawn_by_their_number(exercises: Path) -> None:
    assert [v.problem for v in VARIANTS] == list(PROBLEMS)
    assert chosen(0) == set() and all(chosen(n) == chosen(n) != set() for n in range(1, 50))
    assert len({frozenset(chosen(n)) for n in range(1, 50)}) > 45
    assert statement("x", 3) == "x" and varied(SETS[0], 0) == SETS[0]
    with pytest.raises(ValueError, match="does not stand"):
        statement("\ndef kl(p, q):\n    pass\n", variant_of("kl"))


def test_a_variant_is_written_and_marked(tmp_path: Path, exercises: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variant, file = variant_of("opacity"), exercises / "ex3.py"
    assert grade.main([str(file), "--variant", str(variant), "--write-variant", str(tmp_path)]) == 0
    text = (tmp_path / "ex3.py").read_text(encoding="utf-8")
    assert "the share of light that comes through" in text
    answer = text.split("def opacity")[1].split("# %%")[0].replace(
        "raise NotImplementedError", "return torch.exp(-density * length)")  # fmt: skip
    (tmp_path / "mine.py").write_text(f"import torch\n\n\ndef opacity{answer}", encoding="utf-8")
    grade.main([str(tmp_path / "mine.py"), "--variant", str(variant)])
    assert "opacity             3 of 3   passed" in capsys.readouterr().out
