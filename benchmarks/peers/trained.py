"""Small nets trained once on Fashion-MNIST: with trained weights a top-1 means something, and there are labels.

Eight hundred steps of AdamW from a seed, a few CPU minutes a net; the weights stay in edgekd's cache. Images: the
last 5,000 of the training split are for choices (``validation``), the rest train and calibrate, the 10,000 of the
test split are for the result.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.data.cache_dir import cache_dir
from edgekd.data.fashion_mnist import open_fashion_mnist
from edgekd.errors import ModelError, fault, nearest
from edgekd.preprocess import Preprocess
from edgekd.recipe import DataRecipe
from edgekd.recipes import fashion_nets

PREFIX = "fashion:"
STEPS, BATCH, WARMUP, RATE, DECAY = 800, 128, 40, 2e-3, 0.05
VALIDATION = 5_000
PREPROCESS = Preprocess.model_validate(fashion_nets.PREPROCESS)
_BENCHMARKS = Path(__file__).resolve().parents[1]
FILES = {
    "residual": (Path(fashion_nets.__file__), "student"),
    "efficientnet": (_BENCHMARKS / "exchange_nets.py", "efficientnet"),
    "convnext": (_BENCHMARKS / "exchange_nets.py", "convnext"),
    "mobilenetv3": (_BENCHMARKS / "exchange_nets.py", "mobilenetv3"),
}
"""By name the file and the function in it that make the net."""
Part = Literal["train", "validation", "test"]


def labelled(model: str) -> bool:
    """Whether ``--models`` means one of these nets by this name."""
    return model.startswith(PREFIX)


@dataclass(frozen=True)
class Labelled:
    """``pixels`` uint8 ``(samples, 28, 28)``, ``labels`` int64."""

    pixels: np.ndarray
    labels: np.ndarray

    def first(self, count: int) -> Labelled:
        return Labelled(self.pixels[:count], self.labels[:count])

    @property
    def inputs(self) -> np.ndarray:
        """Preprocessed, float32 ``(samples, 1, 28, 28)``."""
        return PREPROCESS.normalise(self.pixels)


def fashion(part: Part) -> Labelled:
    """Raises:
    DataError: Fashion-MNIST cannot be had.
    """
    samples = open_fashion_mnist(DataRecipe(path="builtin:fashion-mnist"))
    given = samples.given["test" if part == "test" else "train"]
    if part != "test":
        given = given[-VALIDATION:] if part == "validation" else given[:-VALIDATION]
    pixels = np.stack([np.asarray(samples.source.image(int(index))) for index in given])
    return Labelled(pixels.reshape(len(given), 28, 28), samples.source.labels[given])


def build(net: str) -> nn.Module:
    """Raises:
    ModelError: no such net.
    """
    if net not in FILES:
        raise ModelError(fault("--models", "no such net", got=net, fix=nearest(net, FILES)))
    if str(_BENCHMARKS) not in sys.path:
        sys.path.append(str(_BENCHMARKS))
    import exchange_nets  # type: ignore[import-not-found]

    file, name = FILES[net]
    make: Callable[[], nn.Module] = getattr(
        fashion_nets if file.stem == "fashion_nets" else exchange_nets, name
    )
    return make()


def load_trained(net: str, seed: int) -> nn.Module:
    """The net with the weights that :func:`train` left, in eval mode; trained now where there are none."""
    from safetensors.torch import load_file, save_file

    path = cache_dir() / "peers" / "trained" / f"{net}-seed-{seed}-steps-{STEPS}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        save_file(train(net, seed).state_dict(), temporary)
        temporary.replace(path)
    module = build(net)
    module.load_state_dict(load_file(path))
    return module.eval()


def train(net: str, seed: int) -> nn.Module:
    """One thread; crops by two pixels and mirrors; a cosine from 2e-3 behind a short warm-up."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    module, data = build(net).train(), fashion("train")
    inputs, labels = torch.from_numpy(data.inputs), torch.from_numpy(data.labels)
    optimizer = torch.optim.AdamW(module.parameters(), weight_decay=DECAY)
    order = torch.cat([torch.randperm(len(inputs)) for _ in range(-(-STEPS * BATCH // len(inputs)))])
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / WARMUP, (1 + math.cos(math.pi * step / STEPS)) / 2)
        chosen = order[step * BATCH : (step + 1) * BATCH]
        loss = nn.functional.cross_entropy(module(_moved(inputs[chosen])), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


def _moved(images: Tensor) -> Tensor:
    top, left = (int(number) for number in torch.randint(0, 5, (2,)))
    padded = nn.functional.pad(images, (2, 2, 2, 2), mode="replicate")[:, :, top : top + 28, left : left + 28]
    mirrored = torch.rand(len(images)) < 0.5
    return torch.where(mirrored[:, None, None, None], padded.flip(3), padded)
