"""The 3D benchmark on the toybox, where the truth is known: `python -m benchmarks.evidence --help`.

prompts -> settings (what is compared) -> runs (one row of results per asset) -> report (intervals, claims, figures).
"""
