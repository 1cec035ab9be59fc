"""Training: resumes to the same weights as an unbroken run, learns, and its checkpoints are whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jsdsd.toybox import model, train
from jsdsd.toybox.captions import WORDS, Label
from jsdsd.toybox.dataset import dataset, shrink
from jsdsd.toybox.judge import HEADS, Judge


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
    train.train_prior(latents, labels, model.vae(), tmp_path, steps=2, batch=2, seed=1)
    taken: list[int] = []
    update = train.Training.update

    def seen(self: train.Training, loss: torch.Tensor) -> None:
        taken.append(self.step)
        update(self, loss)

    monkeypatch.setattr(train.Training, "update", seen)
    train.train_prior(latents, labels, model.vae(), tmp_path, steps=4, batch=2, seed=1)
    assert taken == [2, 3]


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
