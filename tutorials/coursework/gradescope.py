"""The autograder that Gradescope runs, as a zip: `make gradescope`, or `python tutorials/coursework/gradescope.py`.

Its container is the sandbox, the limits of each student's process stand inside it, and no school needs a machine of
its own.  The zip holds the library and the checker, not the solutions, and a seed of its own.
"""

from __future__ import annotations

import argparse
import secrets
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETUP = """#!/usr/bin/env bash
set -e
apt-get update && apt-get install -y python3 python3-pip python3-venv
python3 -m venv /opt/jsdsd
/opt/jsdsd/bin/pip install -c /autograder/source/constraints.txt torch numpy tqdm matplotlib \\
  --extra-index-url https://download.pytorch.org/whl/cpu
cp -r /autograder/source/jsdsd "$(/opt/jsdsd/bin/python -c 'import site; print(site.getsitepackages()[0])')"
chmod -R go-rwx /autograder/source
"""
RUN = """#!/usr/bin/env bash
cd "${AUTOGRADER:-/autograder}"
"${PYTHON:-/opt/jsdsd/bin/python}" source/tutorials/grade.py submission --gradescope results/results.json \\
  --seed SEED --variant VARIANT > results/log.txt 2>&1 || true
"""


def build(path: Path, seed: int, variant: int = 0) -> None:
    """Write the zip."""
    files = [p for place in ("jsdsd", "tutorials/coursework") for p in sorted((ROOT / place).rglob("*"))]
    files += [ROOT / "tutorials/grade.py", ROOT / "constraints.txt"]
    files += sorted((ROOT / "tutorials/exercises").glob("*.py"))
    kept = [p for p in files if p.is_file() and "__pycache__" not in p.parts and "weights" not in p.parts]
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in kept:
            archive.write(file, file.relative_to(ROOT).as_posix())
        for name, text in (("setup.sh", SETUP), ("run_autograder", RUN)):
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o755 << 16
            archive.writestr(info, text.replace("SEED", str(seed)).replace("VARIANT", str(variant)))


def main() -> None:
    p = argparse.ArgumentParser(description="Build the autograder zip for Gradescope.", allow_abbrev=False)
    p.add_argument("zip", type=Path, nargs="?", default=ROOT / "out" / "gradescope.zip")
    p.add_argument("--seed", type=int, default=secrets.randbits(31), help="of the inputs (default: a fresh one)")
    p.add_argument("--variant", type=int, default=0, help="of the problem sets (default: 0, as handed out)")
    args = p.parse_args()
    build(args.zip, args.seed, args.variant)
    print(f"{args.zip}: upload it under Configure Autograder (seed {args.seed}, variant {args.variant})")


if __name__ == "__main__":
    main()
