"""The shipped recipe that exchanges activations, from the command line to a stage that is loaded again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from edgekd.models.resolve import resolve_model
from edgekd.recipe import InputRecipe

NET = """
from torch import nn

PREPROCESS = {"height": 8, "width": 8, "channels": 1, "mean": [0.3], "std": [0.35], "interpolation": "bilinear"}


def net(num_classes=10, in_chans=1):
    return nn.Sequential(
        nn.Conv2d(in_chans, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(256, num_classes),
    )
"""
QUICK = [
    *(f"{stage}.{key}" for stage in ("distill", "prune", "quantize")
      for key in ("epochs=1", "batch_size=32", "augment={hflip: 0}")),
    "data.max_train=160", "profile.rounds=1", "profile.runs=5", "export.choose=as-trained",
]  # fmt: skip


@pytest.fixture
def command(tmp_path: Path) -> list[object]:
    (tmp_path / "silu.py").write_text(NET)
    return [
        "compress", "same-fast", "--teacher", f"torch:{tmp_path}/silu.py:net", "--data", "builtin:digits",
        "--out", tmp_path / "out", *(part for each in QUICK for part in ("--set", each)),
    ]  # fmt: skip


def test_from_the_command_line(edgekd: Callable[..., Any], command: list[object], tmp_path: Path) -> None:
    done = edgekd(*command)
    assert done.code == 0, done.err
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text())
    distilled = next(stage for stage in report["stages"] if stage["name"] == "distill")
    assert [note.partition(" (")[0] for note in distilled["notes"]] == [
        "1 activation was exchanged as the recipe asks: silu -> relu",
        "1 activation was exchanged as the recipe asks: gelu -> relu",
    ]
    teacher = onnx.load(str(out / "baseline" / "teacher-fp32.onnx"))
    assert {"Sigmoid"} <= {node.op_type for node in teacher.graph.node}, "the teacher keeps its own"
    deployed = {node.op_type for node in onnx.load(str(out / "deploy/cpu/model.onnx")).graph.node}
    assert not deployed & {"Sigmoid", "Erf", "Gelu", "Relu"}, "ReLU is the rounding's lower end"
    entry = report["deploy"][0]
    assert entry["sparsity"]["violations"] == 0 and entry.get("exchange") is None
    for stage in ("02-distill", "03-prune", "04-quantize"):
        loaded = resolve_model(
            str(out / "stages" / stage), classes=10, input=InputRecipe(), base=out, where="t"
        )
        kinds = [type(module) for module in loaded.module.modules()]
        assert kinds.count(nn.ReLU) == 2 and nn.SiLU not in kinds and nn.GELU not in kinds
        assert (nn.BatchNorm2d in kinds) == (stage != "04-quantize")
        with torch.no_grad():
            assert torch.isfinite(loaded.module.eval()(torch.zeros(1, 1, 8, 8))).all()


def test_a_resumed_run_ends_the_same(
    edgekd: Callable[..., Any], command: list[object], tmp_path: Path
) -> None:
    assert edgekd(*command).code == 0
    run, state = tmp_path / "out", tmp_path / "out" / "stages" / "04-quantize" / "state.safetensors"
    first = state.read_bytes()
    record = json.loads((run / "run.json").read_text())
    for key in ("quantize", "deploy/cpu"):
        record["stages"].pop(key)
    record["order"].remove("04-quantize")
    (run / "run.json").write_text(json.dumps(record))
    state.unlink()
    done = edgekd(*command, "--resume")
    assert done.code == 0, done.err
    assert state.read_bytes() == first


def test_it_is_listed_and_after_training_is_refused(
    edgekd: Callable[..., Any], command: list[object], tmp_path: Path
) -> None:
    (row,) = [row for row in edgekd("recipes", "--json", "-").json() if row["name"] == "same-fast"]
    assert row["stages"] == ["distill", "prune", "quantize"] and "ReLU" in row["description"]
    ptq = [*command[:1], "ptq", *command[2:8], "--set", "quantize.substitute=relu"]
    done = edgekd(*ptq)
    assert done.code == 2 and "training has to make up" in done.err and not (tmp_path / "out").exists()
    lacks = edgekd(*command, "--set", "distill.substitute={hardswish: relu}")
    assert lacks.code == 2 and "distill.substitute" in lacks.err and "gelu, silu" in lacks.err
    assert len(lacks.err.strip().splitlines()) == 1 and not (tmp_path / "out").exists()
