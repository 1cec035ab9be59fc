"""What do an asset's own words keep of their sample?  `python benchmarks/own_words.py` (a quarter of an hour).

For every seed: the sample, the words learned from it in several ways, and 16 fresh samples under these words, two for
each of the eight views.  Counted by the judge: how many have the sample's colour and its kind, and how many of those
whose kind has eight different sides show the view that was asked for.  The first line is the prompt without own words.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.evidence.judge import HEADS, load_judge
from jsdsd.objectives.diffusion import ddim_sample
from jsdsd.optimise import OWN_WORDS
from jsdsd.scene.views import view_prompts
from jsdsd.sdxl.embeddings import Embeddings
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.own_words import own_words
from jsdsd.toybox.kinds import KINDS, ORIENTED

SHOWN, SEEDS, SAMPLES = ("a duck", "a mug", "a toy"), tuple(range(4)), 16
Learn = Callable[[Guidance, Embeddings, int, int], Tensor]


def learned(**how: float) -> Learn:
    """The words of (guidance, embeddings of the first view, places of the prompt, seed)."""
    return lambda model, first, places, seed: own_words(model, first, places, seed, model.guidance_scale, **how)[0]


def in_all_places(model: Guidance, first: Embeddings, places: int, seed: int) -> Tensor:
    return learned(low=0.3, steps=40)(model, first, first.tokens.shape[1] - 2, seed)  # all but the first and the last


WAYS: dict[str, Learn] = {
    "the prompt alone": lambda *_: torch.zeros(1),
    "in all places, t from 0.3, 40 steps": in_all_places,
    "in the prompt's places, t from 0.3, 40 steps": learned(low=0.3, steps=40),
    "in the prompt's places, t from 0.6, 30 steps (the default)": learned(),
    "20 steps": learned(steps=20),
    "half the rate": learned(rate=0.05),
}


def main() -> None:
    model, judge = Guidance.load("toybox"), load_judge()

    def draw(noise: Tensor, words: Embeddings) -> dict[str, Tensor]:  # what the judge sees in the samples
        latents = ddim_sample(lambda x_t, t: model.predict_eps(x_t, t, words), model.schedule, noise)
        return {head: p.argmax(1) for head, p in judge.judge(model.decode_latents(latents)).items()}

    views = HEADS["view"][:8]
    asked = torch.arange(SAMPLES) % len(views)  # the view of each fresh sample
    print(f"seeds {SEEDS}, {SAMPLES} samples each; shares of the samples: colour, kind, view")
    for prompt in SHOWN:
        embeddings, places = model.encode_prompts(view_prompts(prompt, views)), model.count_tokens(prompt)
        first = embeddings[torch.tensor([0])]
        for way, learn in WAYS.items():
            kept: dict[str, list[Tensor]] = {"colour": [], "kind": [], "view": []}
            for seed in SEEDS:
                generator = torch.Generator().manual_seed(seed + OWN_WORDS)  # own_words draws the same noise first
                sample = draw(torch.randn(1, *model.latent_shape, generator=generator), first)
                delta = learn(model, first, places, seed + OWN_WORDS)
                fresh = torch.randn(
                    SAMPLES, *model.latent_shape, generator=torch.Generator().manual_seed(1000 + seed)
                )  # the same for all ways
                seen = draw(fresh, embeddings.shifted(delta)[asked])
                kept["colour"].append(seen["colour"] == sample["colour"])
                kept["kind"].append(seen["kind"] == sample["kind"])
                sided = torch.tensor([list(KINDS)[i] in ORIENTED for i in seen["kind"].tolist()])
                kept["view"].append((seen["view"] == asked)[sided])
            shares = {head: torch.cat(some).float() for head, some in kept.items()}
            cells = ", ".join(f"{head} {x.mean():4.0%}" if len(x) else f"{head}   - " for head, x in shares.items())
            print(f"{prompt:7} {way:60} {cells}", flush=True)


if __name__ == "__main__":
    main()
