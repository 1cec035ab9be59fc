"""The judge: a small classifier of kind, colour and view, trained on renders that the prior never saw (another seed).

`python -m benchmarks.evidence.judge` trains it and prints its accuracy on held-out scenes of a third seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from jsdsd.scene.views import random_background
from jsdsd.toybox.captions import VIEWS
from jsdsd.toybox.dataset import Pictures, dataset
from jsdsd.toybox.kinds import COLOURS, KINDS, ORIENTED

TRAIN_SEED, TEST_SEED = 2, 3  # of the scenes; the prior's is 1
HEADS = {"kind": list(KINDS), "colour": list(COLOURS), "view": list(VIEWS)}


class Judge(nn.Module):
    """Pictures (B, 3, 48, 48) in [0, 1] -> logits of 24 kinds, 8 colours and 9 views, (B, 41) side by side."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, 128)
        blocks: list[nn.Module] = []
        for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            blocks += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.SiLU()]
            if i > 0:
                blocks += [nn.Conv2d(b, b, 3, padding=1), nn.GroupNorm(8, b), nn.SiLU()]
        self.body = nn.Sequential(*blocks, nn.Flatten(), nn.Dropout(0.2))  # (B, 128 * 3 * 3)
        self.head = nn.Linear(128 * 9, sum(map(len, HEADS.values())))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.body(pictures * 2 - 1))

    @torch.no_grad()
    def judge(self, pictures: Tensor) -> dict[str, Tensor]:
        """Probabilities {"kind": (B, 24), "colour": (B, 8), "view": (B, 9)} of pictures (B, H, W, 3) in [0, 1].

        Names in the order of KINDS, COLOURS and captions.VIEWS.  Other sizes than 48 x 48 are resized.
        """
        parts = self(self._sized(pictures)).split([len(names) for names in HEADS.values()], 1)
        return {head: part.softmax(1) for head, part in zip(HEADS, parts, strict=True)}

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """Unit vectors (B, 1152) of pictures as `judge` wants them: the last hidden layer."""
        return F.normalize(self.body(self._sized(pictures) * 2 - 1), dim=1)

    def _sized(self, pictures: Tensor) -> Tensor:
        """(B, H, W, 3) -> (B, 3, 48, 48)."""
        if pictures.dim() != 4 or pictures.shape[-1] != 3:
            raise ValueError(f"the judge wants pictures (B, H, W, 3), got {tuple(pictures.shape)}")
        x = pictures.permute(0, 3, 1, 2).float()
        if x.shape[-2:] != (48, 48):
            x = F.interpolate(x, (48, 48), mode="bilinear", antialias=True)
        return x


def load_judge() -> Judge:
    """The trained judge that comes with the package."""
    judge = Judge()
    judge.load_state_dict({k: v.float() for k, v in load_file(Path(__file__).with_name("judge.safetensors")).items()})
    return judge.eval().requires_grad_(False)


def _alone(pictures: Pictures) -> tuple[Tensor, Tensor]:
    """The single toys in random colours before random backgrounds, uint8 (N, 3, 48, 48), and their targets (N, 3)."""
    keep = torch.tensor([i for i, label in enumerate(pictures.labels) if label.relation is None])
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(len(COLOURS), (len(keep), 2), generator=generator)
    shown = []
    for part in torch.arange(len(keep)).split(256):
        x = pictures.painted(keep[part], colours[part], random_background(len(part), generator)) / 2 + 0.5
        small = F.interpolate(x, (48, 48), mode="bilinear", antialias=True)
        shown.append((small * 255).round().clamp(0, 255).to(torch.uint8))
    labels = [pictures.labels[i] for i in keep.tolist()]
    kinds = [HEADS["kind"].index(str(label.toys[0][0])) for label in labels]
    views = [HEADS["view"].index(str(label.view)) for label in labels]
    return torch.cat(shown), torch.stack([torch.tensor(kinds), colours[:, 0], torch.tensor(views)], 1)


def _disturb(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random blur, shift, brightness and noise (B, 3, 48, 48): the judge must not live on single pixels."""
    u = torch.rand(4, generator=generator).tolist()
    if u[0] < 0.4:
        x = F.interpolate(F.avg_pool2d(x, 2), (48, 48), mode="bilinear")
    shift = torch.randint(-3, 4, (2,), generator=generator).tolist()
    x = torch.roll(F.pad(x, (4, 4, 4, 4), mode="replicate"), shift, (2, 3))[:, :, 4:-4, 4:-4]
    x = x * (0.9 + 0.2 * torch.rand(len(x), 1, 1, 1, generator=generator))
    return (x + 0.05 * u[1] * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def accuracy(judge: Judge, known: Pictures) -> dict[str, float]:
    """Share of single-toy pictures that the judge gets right: "kind" (also without and of the
    views from overhead alone), "colour", and "view" (of the kinds whose pictures tell it)."""
    pictures, targets = _alone(known)
    parts = []
    for part, target in zip(pictures.split(256), targets.split(256), strict=True):
        found = judge.judge(part.permute(0, 2, 3, 1).float() / 255)
        parts.append(torch.stack([found[h].argmax(1) == target[:, i] for i, h in enumerate(HEADS)], 1))
    kind, colour, view = torch.cat(parts).float().T  # (N,) each
    overhead = targets[:, 2] == HEADS["view"].index("overhead")
    oriented = torch.isin(targets[:, 0], torch.tensor([HEADS["kind"].index(k) for k in ORIENTED]))
    shares = {
        "kind": kind,
        "kind, around": kind[~overhead],
        "kind, overhead": kind[overhead],
        "colour": colour,
        "view": view[oriented],
    }
    return {name: share.mean().item() for name, share in shares.items()}


def train(known: Pictures, steps: int, seed: int) -> Judge:
    """AdamW, batch 64, one-cycle learning rate; cross-entropy of the three heads, label smoothing 0.05."""
    torch.manual_seed(seed)
    pictures, targets = _alone(known)
    judge = Judge().train()
    optimiser = torch.optim.AdamW(judge.parameters(), weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        index = torch.randint(len(pictures), (64,), generator=generator)
        parts = judge(_disturb(pictures[index].float() / 255, generator)).split([len(n) for n in HEADS.values()], 1)
        loss = torch.stack(
            [F.cross_entropy(p, targets[index, i], label_smoothing=0.05) for i, p in enumerate(parts)]
        ).sum()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        rate.step()
        if (step + 1) % 100 == 0:
            print(f"judge,{step + 1},{loss.item():.3f}", flush=True)
    return judge.eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence.judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("build/toybox"), help="data and result (default build/toybox)"
    )
    parser.add_argument("--scenes", type=int, default=3840, help="scenes of 8 pictures (default 3840)")
    parser.add_argument("--steps", type=int, default=8000, help="of 64 pictures (default 8000)")
    options = parser.parse_args()
    judge = train(dataset(options.folder / "data", options.scenes, TRAIN_SEED), options.steps, TRAIN_SEED)
    (options.folder / "weights").mkdir(exist_ok=True)
    save_file({k: v.half() for k, v in judge.state_dict().items()}, options.folder / "weights" / "judge.safetensors")
    shares = accuracy(judge, dataset(options.folder / "data", 480, TEST_SEED))
    print("held-out scenes: " + ", ".join(f"{head} {share:.4f}" for head, share in shares.items()))


if __name__ == "__main__":
    main()
