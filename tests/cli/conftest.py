"""A small recipe on digits, images on disk, and what a refusal must look like."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

KD = {"kd": {"temperature": 3}, "ce": {"weight": 0.2}}
SMALL = {
    "name": "digits",
    "data": {"path": "builtin:digits", "max_train": 320},
    "stages": [
        {"distill": {"epochs": 1, "batch_size": 32, "lr": 1e-2, "objectives": KD, "augment": {"hflip": 0}}},
        {"prune": {"epochs": 1, "batch_size": 32, "objectives": KD, "augment": {"hflip": 0}}},
        {"quantize": {"epochs": 1, "batch_size": 32, "objectives": KD, "augment": {"hflip": 0}}},
    ],
    "profile": {"rounds": 1, "runs": 5, "warmup": 1},
}


@pytest.fixture
def recipe(nets: Path, digits_teacher: str, tmp_path: Path) -> Callable[..., Path]:
    """``recipe(data={...}, student=...)``: the small recipe with some keys changed, as a file."""

    def write(**changes: Any) -> Path:
        document = copy.deepcopy(SMALL)
        document |= {
            "teacher": f"torch:{nets}/nets.py:teacher@{nets}/teacher.safetensors",
            "student": f"torch:{nets}/nets.py:student",
        }
        document |= changes
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """``photos(a=8, b=8)``: class folders of small noisy images; 0 makes an empty class folder."""

    def make(**counts: int) -> Path:
        folder = tmp_path / "photos"
        random = np.random.default_rng(0)
        for position, (name, count) in enumerate(counts.items()):
            (folder / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 100, (8, 8), dtype=np.uint8) + 10 * position
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
        return folder

    return make


@pytest.fixture
def refused(edgekd, tmp_path: Path) -> Callable[..., str]:
    """Run the command and demand exit code 2, one line, and no file that was not there before."""

    def check(*arguments: object, says: tuple[str, ...] = (), out: Path | None = None) -> str:
        before = sorted(tmp_path.rglob("*"))
        done = edgekd(*arguments)
        assert done.code == 2, (done.code, done.out, done.err)
        assert done.err.count("\n") == 1 and done.err.startswith("edgekd: "), done.err
        assert done.out == ""
        for part in says:
            assert part in done.err, (part, done.err)
        if out is None:
            assert sorted(tmp_path.rglob("*")) == before
        return done.err

    return check


@pytest.fixture(scope="session")
def saved_teacher(nets: Path, digits_teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained teacher as a folder that edgekd saved: it knows its class names, ``0`` to ``9``."""
    from edgekd.models.directory import save_model_dir
    from edgekd.models.resolve import resolve_model
    from edgekd.recipe import InputRecipe

    loaded = resolve_model(digits_teacher, classes=10, input=InputRecipe(), base=nets, where="test")
    folder = tmp_path_factory.mktemp("saved") / "teacher"
    names = [str(k) for k in range(10)]
    save_model_dir(folder, loaded.module, spec=loaded.architecture, classes=names,
                   preprocess=loaded.preprocess, folded=False)  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def onnx_file(edgekd, nets: Path, digits_teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained teacher as ONNX, written by ``edgekd export``."""
    file = tmp_path_factory.mktemp("onnx") / "teacher.onnx"
    done = edgekd("export", f"torch:{nets}/nets.py:teacher@{nets}/teacher.safetensors", "-o", file)
    assert done.code == 0, done.err
    return file
