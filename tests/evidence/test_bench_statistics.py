"""Intervals cover as often as they say; claims are decided by them; diversity's numbers on known histograms."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.evidence import claims, report, sweep
from benchmarks.evidence.diversity import open_heads, pairwise, probabilities, votes
from benchmarks.evidence.jobs import Job, Row
from benchmarks.evidence.prompts import PROMPTS, chosen
from benchmarks.evidence.runs import as_text
from benchmarks.evidence.statistics import Interval, bootstrap, divergence_to, entropy, perfect_divergence


def test_the_interval_covers_the_true_mean_at_its_rate() -> None:
    """24 prompts x 3 seeds, spread between prompts 1 and inside 1, mean 0: 95 of 100, within four standard errors of a
    share of 300; percentile intervals of few prompts cover a little less, and two counted layers a little more."""
    generator, covered, trials = torch.Generator().manual_seed(0), 0, 300
    for trial in range(trials):
        between, inside = (torch.randn(24, n, 1, generator=generator) for n in (1, 3))
        found = bootstrap(list(between + inside), draws=400, seed=trial)
        covered += found.low <= 0 <= found.high
    assert abs(covered / trials - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)


def test_the_interval_of_equal_values_is_a_point_and_prompts_count_alike() -> None:
    found = bootstrap([torch.ones(3, 1), torch.ones(5, 1)])
    assert (found.estimate, found.low, found.high, found.prompts, found.items) == (1, 1, 1, 2, 8)
    assert bootstrap([torch.zeros(1, 1), torch.ones(9, 1)]).estimate == 0.5  # not 0.9
    for bad in ([], [torch.ones(0, 1)], [torch.tensor([[math.nan]])]):
        with pytest.raises(ValueError, match="at least"):
            bootstrap(bad)


def test_the_interval_of_a_divergence_covers_what_as_many_seeds_measure_on_average() -> None:
    """Two settings of 16 seeds, one with all colours alike and one with two: the difference of their divergences,
    within four standard errors of 0.94 of 200 (scratch runs of other seeds: 0.86 to 0.97); its own estimate always."""
    truth, generator = torch.full((8,), 1 / 8), torch.Generator().manual_seed(0)

    def seeds(p: list[float], count: int) -> torch.Tensor:  # (count, 16, 8), votes
        which = torch.multinomial(torch.tensor(p).expand(count, -1), 16, replacement=True, generator=generator)
        return torch.nn.functional.one_hot(which, 8).double()

    def difference(means: torch.Tensor) -> torch.Tensor:
        return divergence_to(truth)(means[..., 8:]) - divergence_to(truth)(means[..., :8])

    even, two = [1 / 8] * 8, [0.8, 0.2] + [0.0] * 6
    average = float(difference(torch.cat([seeds(even, 4000), seeds(two, 4000)], 2).mean(1)).mean())
    pairs = torch.cat([seeds(even, 200), seeds(two, 200)], 2)
    found = [bootstrap([pair], difference, draws=400, seed=i) for i, pair in enumerate(pairs)]
    assert abs(sum(x.low <= average <= x.high for x in found) / 200 - 0.94) < 4 * math.sqrt(0.94 * 0.06 / 200)
    assert all(x.low <= x.estimate <= x.high for x in found)
    assert Interval(0.1, -0.2, 0.3, 1, 1).from_zero() == Interval(0.1, 0, 0.3, 1, 1)
    assert all(x.from_zero() == x for x in found if x.low > 0)


def test_perfect_draws_have_the_known_small_divergence() -> None:
    truth = torch.full((8,), 1 / 8)
    assert perfect_divergence(truth, 256) == pytest.approx(7 / (8 * 256), rel=0.05)
    assert float(divergence_to(truth)(torch.eye(8)[0])) == pytest.approx(
        0.5 * (math.log(2 / (1 + 1 / 8)) + 1 / 8 * math.log(2 / 9) + 7 / 8 * math.log(2)), abs=1e-6
    )
    assert float(entropy(truth.double())) == pytest.approx(math.log(8))


def test_what_a_prompt_leaves_open() -> None:
    assert set(open_heads(PROMPTS["a mug"])) == {"colour"} and set(open_heads(PROMPTS["something red"])) == {"kind"}
    assert set(open_heads(PROMPTS["a toy"])) == {"kind", "colour"} and not open_heads(PROMPTS["a blue car"])
    p = probabilities([{"colour_p": "0.1 0.9"}, {"colour_p": ""}, {"colour_p": "0.7 0.3"}], "colour")
    assert votes(p).tolist() == [[0, 1], [1, 0]]
    assert pairwise(torch.eye(3)[:, None]) == 1 and pairwise(torch.ones(3, 1, 1)) == 0


def rows_of(setting: str, shift: float, colours: int, seeds: int = 8) -> list[Row]:
    """Made-up rows: saturation 1.3 + shift + noise of prompt and seed; the votes run through so many colours."""
    rows = []
    for prompt in chosen(["single", "ambiguous"]):
        for seed in range(seeds):
            noise = torch.randn(1, generator=torch.Generator().manual_seed(len(prompt.text) + 100 * seed)).item()
            row = Job(prompt.text, setting, 3.0, (seed,)).rows()[0] | {"error": "", "iou": 0.9}
            row["saturation"] = 1.3 + shift + 0.1 * noise
            row["colour_p"] = " ".join("1" if i == seed % colours else "0" for i in range(8))
            row["kind_p"] = " ".join("1" if i == seed % colours else "0" for i in range(24))
            rows.append(as_text(row))
    return rows


def test_claims_follow_the_rows() -> None:
    rows = [row for name in ("sds_400", "sds_random_400", "sds_100", "sds_random_100") for row in rows_of(name, 0, 2)]
    rows += rows_of("jsd_k1", -0.05, 8)
    decided = claims.decide(rows, "3", "jsd_k1")
    table = claims.table("jsd_k1", decided)
    for words, verdict in {
        "less saturation": "supported",
        "greater diversity": "supported",
        "better distribution alignment": "supported",
        "higher geometric fidelity": "not supported",  # all IoUs are alike
        "richer detail": "not measured",
    }.items():
        assert f"| {words}: **{verdict}** |" in table
    assert "0.05 [0.05, 0.05]" in table  # the noise is the pairs' own and falls out of their difference
    turned = [row | {"setting": {"jsd_k1": "sds_100", "sds_100": "jsd_k1"}.get(row["setting"], "")} for row in rows]
    again = claims.decide(turned, "3", "jsd_k1")
    assert again[0][1] == "opposite"
    assert "| less saturation | supported | opposite |" in claims.summary({"a": decided, "b": again})
    told = claims.answer({"jsd_k1": decided, "jsd_k3": again}, report.LABELS).splitlines()
    assert told[0].endswith("SDS, 100 steps | SDS, random t, 100 steps | SDS, 400 steps | SDS, random t, 400 steps |")
    point = "0.05 [0.05, 0.05]"
    line = "| less saturation: saturation / true, less | JSD, k = 1 | **supported** |"
    assert told[2] == f"{line} {point} | {point} | {point} | {point} |"
    assert told[3].startswith("|  | JSD, k = 3 | **opposite** | ") and len(told) == 2 + 2 * 6


def test_a_page_keeps_what_stands_around_its_marks() -> None:
    once = report.filled("before\n", "answer", "yes")
    assert once == "before\n<!-- answer: begin -->\n\nyes\n<!-- answer: end -->\n"
    assert report.filled(f"{once}after\n", "answer", "no") == once.replace("yes", "no") + "after\n"
    other_way_round = once.replace("begin", "#").replace("end", "begin").replace("#", "end")
    for bad in (once + once, once.replace("begin", "start"), once.replace(": end", ": e"), other_way_round):
        with pytest.raises(ValueError, match="once each"):
            report.filled(bad, "answer", "no")


def test_verdicts() -> None:
    above, below, around = (Interval(0, low, high, 1, 1) for low, high in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1)))
    assert claims.verdict([above, above]) == "supported"
    assert claims.verdict([above, around]) == claims.verdict([above, below]) == "mixed"
    assert claims.verdict([around, below]) == "not supported" and claims.verdict([below]) == "opposite"
    assert claims.verdict([]) == "not measured"


def test_equal_calls_are_compared_with_equal_calls() -> None:
    assert [e for e, _ in claims.baselines("jsd_k1")] == ["calls", "calls", "steps", "steps"]
    assert claims.baselines("ensemble_jsd_100") == [("steps", "sds_100"), ("steps", "sds_random_100")]
    assert {e for e, _ in claims.baselines("ensemble_jsd_400")} == {"calls"}
    assert {e for e, _ in claims.baselines("jsd_no_inversion_100")} == {"steps"}
    assert {e for e, _ in claims.baselines("jsd_no_inversion_200")} == {"calls"}


def row(setting: str, scale: str, prompt: str, seed: int, iou: float, colour: int = 0) -> dict[str, str]:
    ambiguous = prompt == "a mug"
    seen = " ".join(str(float(i == colour)) for i in range(8))
    return {
        **{"setting": setting, "guidance_scale": scale, "prompt": prompt, "seed": str(seed), "error": ""},
        **{"set": "ambiguous" if ambiguous else "single", "iou": "" if ambiguous else f"{iou:g}", "colour_p": seen},
        **dict.fromkeys(("saturation", "detail", "colour_error"), ""),
    }


def test_the_sweep_compares_scales_on_what_all_of_them_have() -> None:
    rows = [
        *(row("sds_100", "3", "a red mushroom", seed, iou) for seed, iou in ((0, 0.5), (1, 0.9))),  # one more seed
        *(row("sds_100", "3", "a mug", seed, 0.0, seed) for seed in range(8)),
        row("sds_100", "10", "a red mushroom", 0, 0.7),
        *(row("sds_100", "10", "a mug", seed, 0.0, 4) for seed in range(8)),
        row("jsd_k1", "3", "a red mushroom", 0, 0.6),  # one scale only
    ]
    lines = sweep.table(rows).splitlines()
    cells = [line.split(" | ")[1:4] for line in lines[2:]]
    assert cells == [["3", "1, 1", "0.5 [0.5, 0.5]"], ["10", "1, 1", "0.7 [0.7, 0.7]"]]
    assert " | 1, 8 | 0 [" in lines[2] and " | 1, 8 | 0.497 [0.497, 0.497]" in lines[3]  # all colours; one of eight
    assert sweep.table(rows[-1:]) == ""
    assert report.main_scale(rows) == "3"
