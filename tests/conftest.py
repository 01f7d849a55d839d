"""Small real things that several rooms test with: digits, two tiny nets, a trained teacher."""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the nets are tiny: a second thread costs more than it gives
os.environ.setdefault("HF_HUB_OFFLINE", "1")

NETS = '''
"""Two tiny convolutional nets for 8x8 gray images."""
from torch import nn
from torch.nn import functional as F

PREPROCESS = {"height": 8, "width": 8, "channels": 1, "mean": [0.3], "std": [0.35], "interpolation": "bilinear"}


class Net(nn.Module):
    def __init__(self, width, num_classes, in_chans):
        super().__init__()
        self.stem = nn.Conv2d(in_chans, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(2 * width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.first_norm(self.first(x)) + x)
        x = F.relu(self.second_norm(self.second(x)))
        return self.head(self.pool(x).flatten(1))


def teacher(num_classes=10, in_chans=1):
    return Net(24, num_classes, in_chans)


def student(num_classes=10, in_chans=1):
    return Net(8, num_classes, in_chans)
'''


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What ``--json -`` printed; nothing else may stand on stdout."""
        assert self.code == 0, self.err
        return json.loads(self.out)


@pytest.fixture(scope="session")
def edgekd() -> Callable[..., Done]:
    """The command line in this process: ``edgekd("check", file, "--json", "-")``."""

    def call(*arguments: object) -> Done:
        from edgekd.cli.app import run

        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(record=True) as raised,
        ):
            warnings.simplefilter("default")
            code = run([str(argument) for argument in arguments])
        hidden = (
            DeprecationWarning,
            PendingDeprecationWarning,
            ImportWarning,
            ResourceWarning,
        )  # as Python does
        noise = [f"{w.filename}: {w.message}" for w in raised if not issubclass(w.category, hidden)]
        assert not noise, noise
        return Done(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``nets.py``: ``torch:nets.py:teacher`` and ``torch:nets.py:student``."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "nets.py").write_text(NETS)
    return folder


@pytest.fixture(scope="session")
def digits_teacher(nets: Path) -> str:
    """The specification of a teacher trained for a few seconds on digits by the library itself."""
    from accelerate import Accelerator

    from edgekd.data.open import open_data
    from edgekd.models.resolve import resolve_model
    from edgekd.recipe import AugmentRecipe, DataRecipe, InputRecipe, ObjectiveRecipe, TrainRecipe
    from edgekd.train import fit

    data = open_data(DataRecipe(path="builtin:digits"), base=nets)
    spec = "torch:nets.py:teacher"
    import torch

    torch.manual_seed(0)
    loaded = resolve_model(spec, classes=10, input=InputRecipe(), base=nets, where="test", role="student")
    loaded.module.requires_grad_(True)
    recipe = TrainRecipe(
        epochs=6, batch_size=32, lr=1e-2, augment=AugmentRecipe(hflip=0.0), objectives={"ce": ObjectiveRecipe()}
    )  # fmt: skip
    result = fit(
        loaded.module, recipe, stage="teacher", data=data, preprocess=loaded.preprocess, teacher=None, seed=0,
        folder=nets / "training", accelerator=Accelerator(cpu=True),
    )  # fmt: skip
    assert max(epoch.val_metric for epoch in result.history) > 0.93
    import safetensors.torch

    safetensors.torch.save_file(
        {k: v.contiguous() for k, v in loaded.module.state_dict().items()}, nets / "teacher.safetensors"
    )
    return "torch:nets.py:teacher@teacher.safetensors"
