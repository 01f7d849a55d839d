"""Wrong input: exit code 2, one line on stderr that says what to do, and nothing written."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

STIFF = '''
from torch import nn
PREPROCESS = {"height": 8, "width": 8, "channels": 1, "mean": [0.3], "std": [0.35]}

def stiff(num_classes=10):
    """Takes 8x8 pixels alone."""
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, num_classes))

def seven():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7))

def odd(num_classes=10):
    """No layer whose input channels are a multiple of 4."""
    return nn.Sequential(nn.Conv2d(1, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, num_classes))
'''


@pytest.fixture
def stiff(tmp_path: Path) -> str:
    file = tmp_path / "stiff.py"
    file.write_text(STIFF)
    return f"torch:{file}"


def test_an_unknown_recipe_key_names_the_nearest(refused, recipe, tmp_path):
    refused(
        "compress", recipe(tacher="x"), "--out", tmp_path / "out", says=("recipe.yaml", "tacher", "'teacher'")
    )


@pytest.mark.parametrize("verb", ["compress", "check", "profile", "export", "devices"])
def test_an_unknown_device_names_the_nearest(refused, recipe, tmp_path, verb):
    more = {
        "compress": [recipe(), "--device", "jetson-orin-nan", "--out", tmp_path / "out"],
        "export": ["timm:resnet18@random", "-o", tmp_path / "x.onnx", "--device", "jetson-orin-nan"],
        "devices": ["show", "jetson-orin-nan"],
    }.get(verb, [tmp_path / "x.onnx", "--device", "jetson-orin-nan"])
    refused(verb, *more, says=("jetson-orin-nan", "'jetson-orin-nano'"))


def test_a_missing_data_folder(refused, recipe, tmp_path):
    refused("compress", recipe(data={"path": str(tmp_path / "nowhere")}), "--out", tmp_path / "out",
            says=("no such folder", "nowhere"))  # fmt: skip
    refused(
        "compress", recipe(), "--data", tmp_path / "nowhere", "--out", tmp_path / "out", says=("nowhere",)
    )


def test_a_class_without_an_image(refused, recipe, photos, tmp_path):
    folder = photos(a=8, b=8, empty=0)
    refused("compress", recipe(data={"path": str(folder)}), "--out", tmp_path / "out", says=("'empty'",))


def test_one_class_only(refused, recipe, photos, tmp_path):
    folder = photos(a=8)
    refused(
        "compress", recipe(data={"path": str(folder)}), "--out", tmp_path / "out", says=("one class only",)
    )


def test_more_classes_than_the_teacher_has(refused, recipe, photos, tmp_path):
    folder = photos(**{f"c{k:02}": 8 for k in range(12)})
    refused("compress", recipe(data={"path": str(folder)}), "--out", tmp_path / "out",
            says=("teacher", "10", "12"))  # fmt: skip


def test_labels_that_the_teacher_does_not_have(refused, recipe, photos, saved_teacher, tmp_path):
    folder = photos(**{f"c{k}": 8 for k in range(10)})
    refused("compress", recipe(data={"path": str(folder)}, teacher=str(saved_teacher)), "--out", tmp_path / "out",
            says=("labels", "'c0'"))  # fmt: skip


def test_a_student_with_other_classes(refused, recipe, stiff, tmp_path):
    refused(
        "compress", recipe(student=f"{stiff}:seven"), "--out", tmp_path / "out", says=("student", "7", "10")
    )


def test_a_checkpoint_of_another_architecture(refused, recipe, nets, tmp_path):
    teacher = f"torch:{nets}/nets.py:student@{nets}/teacher.safetensors"
    refused(
        "compress",
        recipe(teacher=teacher),
        "--out",
        tmp_path / "out",
        says=("teacher", "stem.weight", "(24, 1, 3, 3)"),
    )


class _Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_a_pickle_with_code_is_refused_and_does_not_run(refused, recipe, nets, tmp_path):
    bomb = tmp_path / "bomb.pt"
    torch.save({"stem.weight": _Bomb(tmp_path / "exploded")}, bomb)
    refused("compress", recipe(teacher=f"torch:{nets}/nets.py:teacher@{bomb}"), "--out", tmp_path / "out",
            says=("code",))  # fmt: skip
    bomb.write_bytes(pickle.dumps(_Bomb(tmp_path / "exploded")))
    refused("compress", recipe(teacher=f"torch:{nets}/nets.py:teacher@{bomb}"), "--out", tmp_path / "out")
    assert not (tmp_path / "exploded").exists()


def test_a_truncated_image_stops_with_the_list(refused, recipe, photos, stiff, tmp_path):
    folder = photos(a=12, b=12)
    for name in ("a/3.png", "b/5.png"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    refused("compress", recipe(data={"path": str(folder)}), "--out", tmp_path / "out",
            says=("2 broken images", "a/3.png", "b/5.png", "max_broken"))  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_a_damaged_table_or_array(refused, recipe, tmp_path, kind):
    file = tmp_path / f"data.{kind}"
    if kind == "csv":
        file.write_bytes(b'path,label\n"a.png,1\n\xff\xfe\n')
    elif kind == "parquet":
        file.write_bytes(b"PAR1" + bytes(100))
    else:
        np.savez(file, images=np.zeros((40, 8, 8), np.uint8), labels=np.arange(40) % 10)
        file.write_bytes(file.read_bytes()[:500])
    refused("compress", recipe(data={"path": str(file)}), "--out", tmp_path / "out", says=(f"data.{kind}",))


@pytest.mark.parametrize("content", [b"", b"not an ONNX file at all", None])
@pytest.mark.parametrize("verb", ["evaluate", "check", "profile", "compress"])
def test_a_damaged_onnx_file(refused, recipe, onnx_file, tmp_path, verb, content):
    file = tmp_path / "damaged.onnx"
    whole = onnx_file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    more = {
        "evaluate": [file, "--data", "builtin:digits"],
        "compress": [recipe(teacher=f"onnx:{file}"), "--out", tmp_path / "out"],
    }.get(verb, [file])
    refused(verb, *more, says=("damaged.onnx",))


def test_a_missing_onnx_file(refused, tmp_path):
    for verb, *more in (("check",), ("profile",), ("evaluate", "--data", "builtin:digits")):
        refused(verb, tmp_path / "nowhere.onnx", *more, says=("nowhere.onnx",))


def test_an_input_size_that_the_model_refuses(refused, recipe, stiff, tmp_path):
    refused("compress", recipe(student=f"{stiff}:stiff", input={"size": 16}), "--out", tmp_path / "out",
            says=("student", "1x16x16", "input.size"))  # fmt: skip


def test_a_batch_of_one_with_batch_norm(refused, recipe, tmp_path):
    refused("compress", recipe(), "--set", "distill.batch_size=1", "--out", tmp_path / "out",
            says=("distill.batch_size", "batch norm"))  # fmt: skip


@pytest.mark.parametrize(("device", "opset"), [("cpu", 99), ("jetson-nano", 19)])
def test_an_opset_that_the_device_cannot_take(refused, recipe, tmp_path, device, opset):
    refused("compress", recipe(), "--device", device, "--set", f"export.opset={opset}", "--out", tmp_path / "out",
            says=(device, str(opset), "allowed"))  # fmt: skip
    refused("export", "timm:resnet18@random", "-o", tmp_path / "x.onnx", "--device", device, "--opset", opset,
            says=(device, str(opset)))  # fmt: skip


def test_two_jetpacks_of_one_board_are_two_runs(refused, recipe, tmp_path):
    boards = ["--device", "jetson-agx-orin@6.0", "--device", "cpu", "--device", "jetson-agx-orin@6.2"]
    refused("compress", recipe(), *boards, "--out", tmp_path / "out",
            says=("devices: a board stands twice", "'jetson-agx-orin'", "two runs"))  # fmt: skip


def test_an_opset_that_cannot_be_written(refused, recipe, tmp_path):
    refused(
        "compress",
        recipe(),
        "--set",
        "export.opset=9",
        "--out",
        tmp_path / "out",
        says=("export.opset", "9", "13"),
    )
    refused(
        "compress",
        recipe(),
        "--set",
        "export.opset=21",
        "--out",
        tmp_path / "out",
        says=("export.opset", "21"),
    )


def test_2_4_where_no_layer_is_eligible(refused, recipe, stiff, tmp_path):
    refused(
        "compress",
        recipe(student=f"{stiff}:odd"),
        "--out",
        tmp_path / "out",
        says=("no layer is eligible", "2:4"),
    )


def test_an_output_under_a_file_or_in_a_folder_that_takes_none(refused, recipe, tmp_path):
    (tmp_path / "file").write_text("x")
    refused("compress", recipe(), "--out", tmp_path / "file" / "out", says=("out", "--out"))
    if Path("/proc/self").exists():
        refused("compress", recipe(), "--out", "/proc/edgekd", says=("/proc/edgekd", "cannot be written"))


def test_an_output_that_holds_something_else(refused, recipe, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").write_text("x")
    refused("compress", recipe(), "--out", tmp_path / "full", says=("not an empty folder",))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"schema": 1, "recipe_hash": "x", "stages": {}}')
    refused("compress", recipe(), "--out", tmp_path / "run", says=("holds another run", "--resume"))
    refused("compress", recipe(), "--out", tmp_path / "run", "--resume", says=("another recipe",))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compress", "fast"], "--out"),
        (["compress", "fast", "--out", "x", "--tacher", "y"], "--tacher"),
        (["compress", "fastt", "--out", "x"], "'fast'"),
        (["compress", "fast", "--out", "x"], "data"),
        (["compress", "--teacher", "timm:resnet18@random", "--out", "x"], "--data"),
        (["compress", "fast", "--out", "x", "--set", "distill.epochs"], "--set"),
        (["compress", "fast", "--out", "x", "--max-latency-ms", "fast"], "--max-latency-ms"),
        (["conpress"], "conpress"),
        (["profile"], "'models'"),
        (["evaluate", "x.onnx"], "--data"),
        (["report", "/nonexistent"], "/nonexistent"),
        (["compare", "/nonexistent"], "/nonexistent"),
        (["devices", "add", "/nonexistent.yaml"], "/nonexistent.yaml"),
    ],
)
def test_a_usage_error(refused, arguments, says, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    refused(*arguments, says=(says,))


def test_a_diverging_loss_keeps_what_was_finished(edgekd, recipe, tmp_path):
    out = tmp_path / "out"
    done = edgekd(
        "compress", recipe(), "--set", "distill.lr=1e30", "--set", "distill.optimizer=sgd", "--out", out
    )
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if line.startswith("edgekd: ")]
    assert "distill" in line and "step" in line and "samples" in line and "lr" in line
    assert (out / "stages" / "01-student" / "model.safetensors").exists()
    assert not list(out.rglob("*.tmp")) and not (out / "stages" / "02-distill" / "metrics.json").exists()


def test_a_model_that_cannot_be_exported_is_one_line(edgekd, tmp_path, capfd):
    (tmp_path / "odd.py").write_text(
        "import torch\nfrom torch import nn\n"
        "PREPROCESS = {'height': 8, 'width': 8, 'channels': 1, 'mean': [0.3], 'std': [0.35]}\n"
        "class Odd(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.head = nn.Linear(64, 10)\n"
        "    def forward(self, x):\n        return self.head(torch.special.erfcx(x.flatten(1)))\n"
    )
    torch._C._jit_set_onnx_log_enabled(True)  # as torch's own export leaves it
    done = edgekd("export", f"torch:{tmp_path}/odd.py:Odd", "-o", tmp_path / "odd.onnx")
    assert done.code == 1 and "erfcx" in done.err and done.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["odd.py"]
    assert capfd.readouterr() == ("", "")  # nor what the exporter prints past Python


def test_a_model_that_decides_by_its_data_is_refused_before_training(refused, recipe, tmp_path):
    (tmp_path / "fork.py").write_text(
        "from torch import nn\n"
        "PREPROCESS = {'height': 8, 'width': 8, 'channels': 1, 'mean': [0.3], 'std': [0.35]}\n"
        "class Fork(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.head = nn.Linear(64, 10)\n"
        "    def forward(self, x):\n        if x.mean() > 0.5:\n            x = x / 2\n"
        "        return self.head(x.flatten(1))\n"
    )
    refused("compress", recipe(teacher=f"torch:{tmp_path}/fork.py:Fork"), "--out", tmp_path / "out",
            says=("fork.py, line 8", "if x.mean() > 0.5", "__bool__", "torch.where"))  # fmt: skip
