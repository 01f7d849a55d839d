"""Two processes on the CPU, joined by gloo: ``torchrun --nproc-per-node 2 -m edgekd compress ...``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launch(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run to the end; a hang fails the test and leaves no process behind."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.slow
def test_two_processes_make_one_run(recipe, edgekd, tmp_path):
    out = tmp_path / "out"
    path = recipe(
        data={"path": "builtin:digits", "max_train": 640},
        stages=[
            {"distill": {"epochs": 4, "batch_size": 16, "lr": 1e-2, "ema_decay": 0.8, "teacher_cache": True,
                         "augment": {"hflip": 0}, "objectives": {"kd": {"temperature": 3}, "ce": {}}}},
            {"prune": {"epochs": 1, "batch_size": 16, "permute": True, "augment": {"hflip": 0}}},
            {"quantize": {"epochs": 1, "batch_size": 16, "augment": {"hflip": 0}}},
        ],
    )  # fmt: skip
    command = [sys.executable, *TORCHRUN, "-m", "edgekd", "compress", str(path), "--out", str(out)]
    done = launch(command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1  # one process tells
    assert done.stderr.count("distill epoch 4/4") == 1
    report = json.loads((out / "report.json").read_text())
    top1 = {stage["name"]: stage["metrics"]["top1"] for stage in report["stages"]}
    assert top1["distill"] > 0.5 and top1["quantize"] > 0.5, top1
    assert report["deploy"][0]["parity"]["agreement"] > 0.97
    history = report["stages"][2]["history"]
    assert history[1]["teacher_seconds"] < 0.5 * history[0]["teacher_seconds"]  # each found its rows
    # One process resumes what two began: the states were one.
    assert edgekd("compress", path, "--out", out, "--resume").code == 0


PROBE = """
import sys
from pathlib import Path
import torch
from edgekd.data.open import open_data
from edgekd.models.resolve import resolve_model
from edgekd.recipe import DataRecipe, InputRecipe
from edgekd.recipe_stages import AugmentRecipe, ObjectiveRecipe, TrainRecipe
from edgekd.schedule import open_accelerator
from edgekd.train import fit
from edgekd.training import Training
import safetensors.torch

nets, out = Path(sys.argv[1]), Path(sys.argv[2])
accelerator = open_accelerator()
assert accelerator.num_processes == 2
data = open_data(DataRecipe(path="builtin:digits", max_train=320), base=nets)
torch.manual_seed(0)
loaded = resolve_model("torch:nets.py:student", classes=10, input=InputRecipe(), base=nets, where="t", role="student")
loaded.module.requires_grad_(True)
recipe = TrainRecipe(epochs=3, batch_size=16, lr=1e-2, objectives={"ce": ObjectiveRecipe()}, ema_decay=0.9)
fit(loaded.module, recipe, Training(stage="distill", data=data, preprocess=loaded.preprocess, seed=0,
    folder=out / "work", accelerator=accelerator))
safetensors.torch.save_file(loaded.module.state_dict(), out / f"{accelerator.process_index}.safetensors")
"""


@pytest.mark.slow
def test_both_processes_end_with_the_same_model(nets, tmp_path):
    """Parameters, batch-norm statistics and the choice of the best epoch; the second saw other samples."""
    script = tmp_path / "probe.py"
    script.write_text(PROBE)
    command = [sys.executable, *TORCHRUN, str(script), str(nets), str(tmp_path)]
    done = launch(command)
    assert done.returncode == 0, done.stderr
    one, two = (load(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def load(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)
