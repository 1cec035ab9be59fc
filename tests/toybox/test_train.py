"""Training: resumes to the same weights as an unbroken run, learns, and its checkpoints are whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jsdsd.scene.views import camera_corner
from jsdsd.toybox import model, train
from jsdsd.toybox.captions import WORDS
from jsdsd.toybox.dataset import Pictures, dataset


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return dataset(None, 2, seed=7)


def steps_of(folder: Path, stop: int, steps: int = 6) -> train.Training:
    """A little network trained from `folder`'s checkpoint on, to step `stop`."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    run = train.Training("net", net, folder, steps, peak=0.1, keep=1)
    while run.step < stop:
        run.update((net(torch.randn(5, 3, generator=run.generator(1))) ** 2).mean())
    return run


def test_a_broken_run_resumes_where_it_stopped(tmp_path: Path) -> None:
    """Weights, average, Adam's moments, the data's order and the learning rate: as if nothing had happened."""
    whole = steps_of(tmp_path / "whole", 6)
    steps_of(tmp_path / "broken", 3)
    resumed = steps_of(tmp_path / "broken", 6)
    assert resumed.step == 6
    for name, x in whole.net.state_dict().items():
        assert torch.equal(x, resumed.net.state_dict()[name]), name
        assert torch.equal(whole.ema[name], resumed.ema[name]), name


def test_the_prior_resumes_at_its_checkpoint(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(steps: int) -> None:
        train.train_prior(train.Prior(1), pictures, model.vae(), tmp_path, steps, batch=2, seed=1, keep=1)

    trained(2)
    taken: list[int] = []
    update = train.Training.update

    def seen(self: train.Training, loss: torch.Tensor) -> None:
        taken.append(self.step)
        update(self, loss)

    monkeypatch.setattr(train.Training, "update", seen)
    trained(4)
    trained(4)
    assert taken == [2, 3]


def test_what_the_prior_is_told(pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture's own camera, or none at all one time in five; zeros for half of the empty captions."""
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    class Stop(Exception):
        pass

    def look(
        self: train.Prior, x: object, t: object, tokens: torch.Tensor, zero: torch.Tensor, corner: torch.Tensor
    ) -> None:
        seen.append((tokens, zero, corner))
        raise Stop

    monkeypatch.setattr(train.Prior, "forward", look)
    monkeypatch.setattr(train, "encode", lambda net, x: torch.zeros(len(x), 4, 24, 24))
    monkeypatch.setattr(Pictures, "painted", lambda self, index, colours, background: index)
    with pytest.raises(Stop):
        train.train_prior(train.Prior(1), pictures, model.vae(), tmp_path, 1, batch=4096, seed=1)
    ((tokens, zero, corner),) = seen
    empty = tokens[:, 1] == tokens[:, 2]  # nothing but the end token, again and again
    assert zero[~empty].sum() == 0
    assert empty.float().mean() == pytest.approx(0.1, abs=0.05) and zero[empty].float().mean() == pytest.approx(
        0.5, abs=0.12
    )
    said = (corner != 0).any(1)
    assert said.float().mean() == pytest.approx(1 - train.UNSAID_CAMERA, abs=0.03)
    own = {tuple(row) for row in camera_corner(*pictures.cameras.T).tolist()}
    assert {tuple(row) for row in corner[said].tolist()} <= own


def picture_of(pictures: Pictures) -> torch.Tensor:
    """(16, 3, 96, 96) in [-1, 1]"""
    index = torch.arange(len(pictures))
    return pictures.painted(
        index, index[:, None] % 8 * torch.ones(1, 2, dtype=torch.long), torch.full((len(index), 3), 0.4)
    )


def test_the_vae_learns(pictures: Pictures, tmp_path: Path) -> None:
    x = picture_of(pictures)

    def error(vae: torch.nn.Module) -> float:
        with torch.no_grad():
            return float((vae.decode(vae.encode(x).latent_dist.mean).sample - x).abs().mean())  # type: ignore[operator]

    short = train.train_vae(pictures, tmp_path / "short", steps=1, batch=4, seed=1)
    longer = train.train_vae(pictures, tmp_path / "long", steps=40, batch=4, seed=1)
    assert error(longer) < 0.8 * error(short)
    latents = train.encode(longer, x) * longer.config.scaling_factor
    assert latents.std(dim=(0, 2, 3)).mean() == pytest.approx(1, abs=0.3)


def test_centring_moves_the_latents_and_not_the_pictures(pictures: Pictures) -> None:
    net, x = model.vae().double(), picture_of(pictures).double()
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
    with pytest.raises(FloatingPointError, match="loss is nan before step 5"):
        for _ in range(5):
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
