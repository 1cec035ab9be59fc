"""A class's files, as learning platforms give them out, become one table of marks."""

from __future__ import annotations

import csv
import io
import json
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import grade
import pytest
from coursework import SETS, report
from coursework.handed_in import BadFile, cells, collect, student
from coursework.inside.source import fingerprint, without_magics
from coursework.marking import mark
from coursework.process import Worker

ROOT = Path(__file__).resolve().parents[2]
SOLUTIONS = ROOT / "tutorials" / "exercises" / "solutions"
TEXT = "def kl(p, q):\n    return p\n"


def zipped(members: dict[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def notebook(*sources: str | list[str]) -> str:
    book = [{"cell_type": "code", "source": s, "metadata": {}, "outputs": []} for s in sources]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": "# words"}, *book], "nbformat": 4})


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Berg Ada_4711_assignsubmission_file_/ex1.py", "Berg Ada"),  # Moodle, folders
        ("Berg Ada_4711_assignsubmission_file_ex1.py", "Berg Ada"),  # Moodle, flat
        ("bergada_123_4567_ex1.py", "bergada"),  # Canvas
        ("bergada_LATE_123_4567_ex1-2.py", "bergada"),  # Canvas, late and again
        ("assignment-1-adaberg/src/ex1.py", "assignment-1-adaberg"),  # GitHub Classroom
        ("submissions/adaberg/ex1.py", "adaberg"),
        ("assignment_export/submission_9/ex1.py", "assignment_export"),
        ("ex1.py", "ex1"),
    ],
)
def test_who_handed_in(path: str, name: str) -> None:
    from pathlib import PurePosixPath

    assert student(PurePosixPath(path)) == name


def test_archives_are_read_and_never_unpacked(tmp_path: Path) -> None:
    inner = zipped({"ex1.py": TEXT, "__MACOSX/._ex1.py": "junk", ".git/hook.py": "junk"})
    link = zipfile.ZipInfo("link_1_2_ex2.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    outer = tmp_path / "class.zip"
    outer.write_bytes(zipped({
        "Berg Ada_1_assignsubmission_file_/work.zip": inner,
        "curie_1_2_ex1.py": TEXT,
        "../../evil_1_2_ex1.py": TEXT,
        "/absolute_1_2_ex1.py": TEXT,
        "bomb_1_2_ex1.py": b"#" * 2**27,
        "readme.txt": "not this",
        "broken_1_2_work.zip": b"PK no",
    }))  # fmt: skip
    with zipfile.ZipFile(outer, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    found = {s.student: s.content for s in collect([outer])}
    assert found["Berg Ada"] == found["curie"] == found["evil"] == found["absolute"] == TEXT.encode()
    assert "too large when unpacked" in str(found["bomb"]) and "no zip file" in str(found["broken"])
    assert found["link"] == b"/etc/passwd"  # the text of a link; it is not followed
    assert [p.name for p in tmp_path.iterdir()] == ["class.zip"]


def test_an_archive_in_itself_ends(tmp_path: Path) -> None:
    content = zipped({"ex1.py": TEXT})
    for _ in range(6):
        content = zipped({"a.zip": content})
    (tmp_path / "deep.zip").write_bytes(content)
    (found,) = collect([tmp_path / "deep.zip"])
    assert "too deep" in str(found.content)


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "class" / "ada"
    folder.mkdir(parents=True)
    (folder / "ex1.py").symlink_to(SOLUTIONS / "ex1.py")
    (tmp_path / "class" / "bob").symlink_to(SOLUTIONS)
    found = {s.student: s.content for s in collect([tmp_path / "class"])}
    assert "is a link" in str(found["ada"]) and not any(isinstance(c, bytes) for c in found.values())


def test_a_notebook_is_marked(worker: Worker) -> None:
    from coursework.handed_in import Submission

    text = (SOLUTIONS / "ex1.py").read_text(encoding="utf-8")
    body = text[text.index("import math") : text.index("# %% Questions")]
    book = notebook("%matplotlib inline\n!pip install jsdsd\nimport math", "%%bash\nls", ["1 / 0\n"], body, "kl?")
    marked = mark(Submission("", "ex1.ipynb", book.encode()), worker, 3)
    assert [r.verdict.status for r in marked.results] == ["passed"] * 6
    marked = mark(Submission("", "ex1.ipynb", notebook(TEXT, "def weight(:").encode()), worker, 3)
    by_name = {r.problem.name: r.verdict for r in marked.results}
    assert by_name["kl"].what.startswith("wrong shape") and "cell that fails" in by_name["weight"].why


@pytest.mark.parametrize("text", ["{", "[" * 10**5, "[]", '{"cells": 3}', notebook(), notebook("")])
def test_what_is_no_notebook(text: str) -> None:
    with pytest.raises(BadFile, match="notebook"):
        cells("ex1.ipynb", text.encode())


def test_magics() -> None:
    assert without_magics("%%time\nx = 1") == "pass\nx = 1"
    assert without_magics("%%html\n<b>") == "" and without_magics("x = (7\n% 4)") == "x = (7\n% 4)"
    assert without_magics("if a:\n    %timeit f()\nf?") == "if a:\n    pass\npass"


def test_a_class_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    solution = (SOLUTIONS / "ex1.py").read_text(encoding="utf-8")
    (tmp_path / "class.zip").write_bytes(zipped({
        "ada_1_2_ex1.py": solution,
        "bob_1_2_ex1.py": solution.replace("(p + q) / 2", "p + q").replace("log_ratio", "u"),
        "=cmd_1_2_ex1.py": "import os; os._exit(0)\n" + TEXT,
        "eve_1_2_ex1.py": "def kl(p, q)\n",
        "zoe_1_2_ex2.py": "from jsdsd import Ensemble\n\n\ndef ensemble_gradient(d, p, x, e, t):\n"
                          "    return Ensemble(d).gradient(p, x, t, noise=e).grad\n",
    }))  # fmt: skip
    table, reports, scope = tmp_path / "marks.csv", tmp_path / "reports", tmp_path / "results.json"
    code = grade.main([str(tmp_path / "class.zip"), "--csv", str(table), "--reports", str(reports), "--seed", "11",
                       "--gradescope", str(scope)])  # fmt: skip
    assert code == grade.NOT_ALL_PASSED
    with table.open(encoding="utf-8-sig") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert rows["ada"]["points"] == "30" and rows["ada"]["mistakes"] == "" and float(rows["ada"]["seconds"]) > 0
    assert rows["bob"]["points"] == "26" and rows["bob"]["jensen_shannon"] == "0"
    assert rows["bob"]["mistakes"] == "jensen_shannon: wrong value: mixture not halved"
    assert rows["bob"]["similar to"] == "ada" and float(rows["ada"]["similar"]) > 0.9
    assert rows["'=cmd"]["points"] == "0" and "no answer" in rows["'=cmd"]["mistakes"]
    assert "not valid Python" in rows["eve"]["trouble"] and rows["eve"]["points"] == "0"
    assert rows["zoe"]["ensemble_gradient"] == "6" and rows["zoe"]["uses of jsdsd"] == "Ensemble"
    assert "mixture not halved" in (reports / "bob.txt").read_text(encoding="utf-8")
    assert "alike" in capsys.readouterr().out
    tests = json.loads(scope.read_text(encoding="utf-8"))["tests"]
    assert sum(t["score"] for t in tests) == 30 + 26 + 6 and {t["status"] for t in tests} == {"passed", "failed"}


def test_a_fingerprint_knows_no_names() -> None:
    text = (SOLUTIONS / "ex2.py").read_text(encoding="utf-8")
    renamed = text.replace("alpha_squared", "a2").replace("posterior", "share").replace("# (K,)", "# hm")
    assert fingerprint(text) == fingerprint(renamed) != fingerprint(text.replace("+", "-"))


def test_reports_of_like_names_stay_apart(tmp_path: Path) -> None:
    from coursework.marking import Marked

    report.write_reports(tmp_path, [Marked("a/b", "x.py", trouble="1"), Marked("a_b", "x.py", trouble="2")])
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_eighty_files(tmp_path: Path) -> None:
    """A class of eighty: every file gets its marks; `--durations` says the seconds."""
    for i in range(80):
        text = (SOLUTIONS / f"ex{i % 3 + 1}.py").read_text(encoding="utf-8")
        (tmp_path / f"s{i}_1_2_ex.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "tutorials/grade.py", str(tmp_path), "--csv", str(tmp_path / "marks.csv"), "--seed", "3"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with (tmp_path / "marks.csv").open(encoding="utf-8-sig") as file:
        assert [row["points"] for row in csv.DictReader(file)] == ["30"] * 80
    assert len(SETS) == 3


def test_the_autograder_marks_what_is_submitted(tmp_path: Path) -> None:
    """The zip as Gradescope unpacks and runs it, with this Python in place of the container's."""
    import os

    from coursework.gradescope import build

    build(tmp_path / "autograder.zip", 5)
    with zipfile.ZipFile(tmp_path / "autograder.zip") as archive:
        assert not [n for n in archive.namelist() if "solutions" in n or "__pycache__" in n]
        archive.extractall(tmp_path / "source")
    for name in ("submission", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "submission" / "ex1.py").write_text(
        "import torch\n\n\ndef discriminator(a, b):\n    return torch.sigmoid(a - b)\n", encoding="utf-8"
    )
    environment = {**os.environ, "AUTOGRADER": str(tmp_path), "PYTHON": sys.executable}
    environment["PYTHONPATH"] = str(tmp_path / "source")
    subprocess.run(["bash", str(tmp_path / "source" / "run_autograder")], env=environment, check=True)
    result = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert [t["score"] for t in result["tests"]] == [0, 0, 0, 4, 0, 0]
    assert [t["max_score"] for t in result["tests"]] == [3, 4, 5, 4, 5, 9]
