"""The tokenizer: the networks learn its numbers, so they must be the same in every process and in both folders."""

from __future__ import annotations

from safetensors.torch import load_file
from transformers import CLIPTokenizer

import jsdsd
from jsdsd.toybox import model
from jsdsd.toybox.captions import WORDS


def test_the_tokenizer_is_always_the_same_and_the_embedded_ones_are_it() -> None:
    """A past failure: letters at a word's end took their numbers from a hash table, and "a", "on", "to" and the comma
    reached the embedded networks as tokens that training never saw."""
    made = [model.tokenizer() for _ in range(4)]  # each of its hash tables has an order of its own
    embedded = [CLIPTokenizer.from_pretrained(jsdsd.toybox.path() / name) for name in ("tokenizer", "tokenizer_2")]
    vocabularies = [tokenizer.get_vocab() for tokenizer in made + embedded]
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)
    for word in (*WORDS, ","):
        for tokenizer in (made[0], *embedded):
            start, *tokens, end = tokenizer(word).input_ids
            assert tokens == [vocabularies[0][f"{word}</w>"]], word


def test_every_token_of_a_caption_was_trained() -> None:
    """Rows of words that training saw are larger than those of pieces of words, which kept their start's 0.02."""
    encoder = load_file(jsdsd.toybox.path() / "text_encoder" / "model.safetensors")
    (rows,) = [x.float() for name, x in encoder.items() if "token_embedding" in name]
    numbers = model.tokenizer().get_vocab()
    said = {numbers[f"{word}</w>"] for word in (*WORDS, ",")}
    pieces = [i for i in range(2, len(rows)) if i not in said]
    assert rows[sorted(said)].std(1).min() > 1.4 * rows[pieces].std(1).median()
