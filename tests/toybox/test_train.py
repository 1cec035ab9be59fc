"""Training: resumes to the same weights as an unbroken run, learns, and its checkpoints are whole or absent."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.evidence import judge
from benchmarks.evidence.judge import HEADS, Judge
from jsdsd.toybox import model, train
from jsdsd.toybox.captions import WORDS, Label
from jsdsd.toybox.dataset import dataset, shrink
from jsdsd.toybox.kinds import COLOURS


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.Tensor, list[Label]]:
    images, labels = dataset(tmp_path_factory.mktemp("data"), 2, seed=7)
    return shrink(images), labels


def steps_of(folder: Path, stop: int, steps: int = 6) -> train.Training:
    """A little network trained from `folder`'s checkpoint on, to step `stop`."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    run = train.Training("net", net, folder, steps, peak=0.1)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    while run.step < stop:
        index, _ = train.batch_of(x, 5, 1, run.step)
        run.update((net(x[index]) ** 2).mean())
    return run


def test_a_broken_run_resumes_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, average, Adam's moments, the data's order and the learning rate: as if nothing had happened."""
    monkeypatch.setattr(train, "SAVE_EVERY", 1)
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = steps_of(tmp_path / "whole", 6)
    steps_of(tmp_path / "broken", 3)
    resumed = steps_of(tmp_path / "broken", 6)
    assert resumed.step == 6
    for name, x in whole.net.state_dict().items():
        assert torch.equal(x, resumed.net.state_dict()[name]), name
        assert torch.equal(whole.ema[name], resumed.ema[name]), name


def test_the_prior_resumes_at_its_checkpoint(
    pictures: tuple[torch.Tensor, list[Label]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "SAVE_EVERY", 1)
    images, labels = pictures
    latents = torch.randn(len(images), 4, 12, 12, generator=torch.Generator().manual_seed(0))

    def trained(*phases: train.Phase) -> None:
        prior = train.Prior(1)
        for phase in phases:
            train.train_prior(prior, phase, latents, labels, model.vae(), tmp_path, batch=2, seed=1)

    def first(steps: int) -> train.Phase:
        return train.Phase("first", steps, peak=1e-3, unsaid_colours=0, draws=1)

    trained(first(2))
    taken: list[int] = []
    update = train.Training.update

    def seen(self: train.Training, loss: torch.Tensor) -> None:
        taken.append(self.step)
        update(self, loss)

    monkeypatch.setattr(train.Training, "update", seen)
    second = train.Phase("second", 2, peak=1e-3, unsaid_colours=0.5, draws=3)
    trained(first(4), second)
    assert taken == [2, 3, 0, 1]  # the second phase has steps of its own
    trained(first(4), second)
    assert taken == [2, 3, 0, 1]  # all is done


def test_the_last_phase_says_fewer_colours_and_sees_more_noise(
    pictures: tuple[torch.Tensor, list[Label]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, labels = pictures
    latents = torch.zeros(len(labels), 4, 12, 12)
    seen: dict[str, tuple[list[str], torch.Tensor]] = {}

    class Stop(Exception):
        pass

    def look(self: train.Prior, x_t: torch.Tensor, t: torch.Tensor, captions: list[str], zero: torch.Tensor) -> None:
        seen[phase.name] = captions, t.double()
        raise Stop

    monkeypatch.setattr(train.Prior, "forward", look)
    for phase in (train.Phase("all", 1, 1e-3, 0, 1), train.Phase("none", 1, 1e-3, 1, 3)):
        with pytest.raises(Stop):
            train.train_prior(train.Prior(1), phase, latents, labels, model.vae(), tmp_path, batch=4096, seed=1)
    share = {n: sum(any(c in text.split() for c in COLOURS) for text in said) / 4096 for n, (said, _) in seen.items()}
    assert share["all"] > 0.6 and share["none"] == 0
    for name, draws in (("all", 1), ("none", 3)):  # the largest of n uniform draws has mean n/(n + 1), sd < 0.3
        assert seen[name][1].mean() / 1000 == pytest.approx(draws / (draws + 1), abs=0.3 * 4 / 64)


def test_the_vae_learns(pictures: tuple[torch.Tensor, list[Label]], tmp_path: Path) -> None:
    images, _ = pictures

    def error(vae: torch.nn.Module) -> float:
        x = train.to_float(images)
        with torch.no_grad():
            return float((vae.decode(vae.encode(x).latent_dist.mean).sample - x).abs().mean())  # type: ignore[operator]

    (tmp_path / "short").mkdir()
    short = train.train_vae(images, tmp_path / "short", steps=1, batch=4, seed=1)
    longer = train.train_vae(images, tmp_path, steps=40, batch=4, seed=1)
    assert error(longer) < 0.8 * error(short)
    scaled = train.encode(longer, images) * longer.config.scaling_factor
    assert scaled.std() == pytest.approx(1, abs=0.25)


def test_centring_moves_the_latents_and_not_the_pictures(pictures: tuple[torch.Tensor, list[Label]]) -> None:
    images, _ = pictures
    net = model.vae().double()
    x = images.double() / 127.5 - 1
    with torch.no_grad():
        before = net.encode(x).latent_dist
        decoded = net.decode(before.mean).sample
        train.centre(net, before.mean.mean(dim=(0, 2, 3)))
        after = net.encode(x).latent_dist
    assert after.mean.mean(dim=(0, 2, 3)).abs().max() < 1e-9
    assert torch.equal(after.logvar, before.logvar)
    torch.testing.assert_close(net.decode(after.mean).sample, decoded)


def test_a_loss_that_is_not_finite_stops_in_words(tmp_path: Path) -> None:
    net = torch.nn.Linear(2, 1)
    run = train.Training("net", net, tmp_path, steps=5, peak=1e-3)
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        run.update(net(torch.full((1, 2), float("nan"))).sum())


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    rates = [train.learning_rate(s, 1000, 2.0) for s in range(1001)]
    assert rates[0] == pytest.approx(0.01) and max(rates) <= 2.0 and rates[1000] == 0
    assert all(a >= b for a, b in zip(rates[200:], rates[201:], strict=False))


def test_every_word_is_one_token() -> None:
    tokens = model.tokenizer()
    ids = [tokens(word).input_ids for word in [*WORDS, ","]]
    assert all(len(i) == 3 for i in ids) and len({i[1] for i in ids}) == len(ids)
    longest = tokens("a yellow ice cream next to a yellow ice cream, front right view").input_ids
    assert len(longest) <= model.TOKENS


def test_the_same_seed_makes_the_same_network() -> None:
    a, b, c = (model.pipeline(s).unet.state_dict()["conv_in.weight"] for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_the_judge_wants_pictures_and_gives_distributions() -> None:
    judge = Judge().eval()
    found = judge.judge(torch.rand(2, 96, 96, 3))
    for head, names in HEADS.items():
        assert found[head].shape == (2, len(names)) and torch.allclose(found[head].sum(1), torch.ones(2), atol=1e-5)
    with pytest.raises(ValueError, match="wants pictures"):
        judge.judge(torch.rand(2, 3, 48, 48))


def test_the_judges_command_trains_saves_and_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = dataset(tmp_path, 4, seed=7)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(judge, "dataset", lambda folder, scenes, seed: (asked.append((scenes, seed)), small)[1])
    monkeypatch.setattr(sys, "argv", ["judge", "--folder", str(tmp_path), "--scenes", "4", "--steps", "5"])
    judge.main()
    assert asked == [(4, judge.TRAIN_SEED), (480, judge.TEST_SEED)] and judge.TRAIN_SEED != judge.TEST_SEED
    assert "held-out scenes: kind " in capsys.readouterr().out
    Judge().load_state_dict({k: v.float() for k, v in load_file(tmp_path / "weights" / "judge.safetensors").items()})
