"""Run the benchmark and write its report.

python -m benchmarks.evidence --processes 2                    # everything, four seeds, then the report
python -m benchmarks.evidence run --prompts single --seeds 0 1 # some of it; the same command again goes on
python -m benchmarks.evidence report                           # tables, claims and figures from what there is
python -m benchmarks.evidence --quick                          # four prompts, few steps, minutes: is it alive?
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from .jobs import planned
from .prompts import chosen
from .report import write
from .runs import run
from .settings import COMPARED, REFERENCES, SETTINGS

DEFAULT = (*COMPARED, "seeded", *REFERENCES)
QUICK = ("sds_100", "jsd_k1", "seeded", "ensemble_jsd_100", *REFERENCES)


def main() -> None:
    """See --help."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("what", nargs="?", choices=("all", "run", "report"), default="all")
    p.add_argument("-o", "--out", type=Path, help="rows and assets (default out/bench, quick: out/bench-quick)")
    p.add_argument("--page", type=Path, help="of the report (default docs/evidence.md, quick: in --out)")
    p.add_argument("--prompts", nargs="*", help="prompts, sets or splits (default: all)")
    p.add_argument(
        "--settings",
        nargs="*",
        choices=[*SETTINGS, *REFERENCES],
        metavar="NAME",
        help=f"default: {' '.join(DEFAULT)}; further: {' '.join(s for s in SETTINGS if s not in DEFAULT)}",
    )
    p.add_argument("--guidance", nargs="*", type=float, default=[3.0], help="guidance scales (default: 3)")
    p.add_argument(
        "--seeds", nargs="*", type=int, default=[0, 1, 2, 3], help="(default: 0 1 2 3); a joint ensemble takes all"
    )
    p.add_argument("--processes", type=int, default=1, help="one thread each (default 1)")
    p.add_argument("--seconds", type=float, default=math.inf, help="begin no asset after so many")
    p.add_argument("--remeasure", action="store_true", help="measure the assets again, make none again")
    p.add_argument("--model", default="toybox", help="a toybox folder (default: the embedded one)")
    p.add_argument(
        "--quick", action="store_true", help="the first prompt of each set, a fiftieth of the steps, 2 seeds"
    )
    args = p.parse_args()
    if not args.seeds or not args.guidance:
        p.error("--seeds and --guidance want one number at least")
    out = args.out or Path("out/bench-quick" if args.quick else "out/bench")
    if args.what != "report":
        prompts = chosen(args.prompts)[: 4 if args.quick else None]
        settings = args.settings or (QUICK if args.quick else DEFAULT)
        seeds, share = ([0, 1], 0.02) if args.quick else (args.seeds, 1.0)
        jobs = planned(prompts, settings, args.guidance, seeds, share)
        rows = run(
            jobs, out, processes=args.processes, seconds=args.seconds, model=args.model, remeasure=args.remeasure
        )
        print(f"{out / 'rows.csv'}: {len(rows)} rows of this plan's {sum(len(job.rows()) for job in jobs)}")
    if args.what != "run":
        page = args.page or (out / "evidence.md" if args.quick else Path("docs/evidence.md"))
        write(out, page)
        print(f"wrote {page} and {page.with_suffix('')}/")


if __name__ == "__main__":
    main()
