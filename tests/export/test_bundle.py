"""The deploy folder: complete, true, and working with nothing but onnxruntime, numpy and Pillow."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from edgekd.artifact import sha256_file
from edgekd.data.path_source import decode
from edgekd.device import load_device
from edgekd.errors import ExportError
from edgekd.export.bundle import write_bundle
from edgekd.preprocess import Preprocess
from edgekd.profiles.session import open_session

CLASSES = [f"class {k}" for k in range(8)] + ["Zürich", "T-shirt/top"]
MODES = ["RGB", "L", "RGBA", "P", "LA", "1", "CMYK"]


def photo(size: tuple[int, int], mode: str, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (9, 13, 4 if mode == "RGBA" else 3), np.uint8)
    image = Image.fromarray(small, "RGBA" if mode == "RGBA" else "RGB").resize(size, Image.Resampling.BICUBIC)
    return image if image.mode == mode else image.convert(mode)


@pytest.fixture(scope="module")
def folder(resnet: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "cpu"
    write_bundle(
        path,
        model_file=resnet.file.path,
        classes=CLASSES,
        preprocess=Preprocess(height=48, width=48, crop_pct=0.9),
        device=load_device("raspberry-pi-4b"),
        facts={"scheme": "u8s8", "pattern": "2:4", "top1": 0.5, "teacher": None},
    )
    return path


def load_script(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("bundle_run_copy", folder / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_manifest_tells_the_truth(folder: Path, resnet: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx", "manifest.json", "labels.json", "run.py", "README.md",
    }  # fmt: skip
    assert set(manifest["files"]) == {"model.onnx", "labels.json", "run.py", "README.md"}
    for name, digest in manifest["files"].items():
        assert sha256_file(folder / name) == digest
    assert manifest["model"]["sha256"] == resnet.file.sha256
    assert (manifest["opset"], manifest["scheme"], manifest["pattern"]) == (17, "u8s8", "2:4")
    assert manifest["runtime"] == "onnxruntime" and manifest["device"]["name"] == "raspberry-pi-4b"
    assert Preprocess.model_validate(manifest["preprocess"]) == Preprocess(height=48, width=48, crop_pct=0.9)
    assert json.loads((folder / "labels.json").read_text()) == CLASSES


def test_the_script_is_python_3_8() -> None:
    """JetPack 5 has no later one."""
    source = resources.files("edgekd.export").joinpath("bundle_run.py").read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert foreign == {"numpy", "onnxruntime", "PIL"}


def test_the_page_says_how_to_run_it_on_that_board(folder: Path) -> None:
    page = (folder / "README.md").read_text()
    assert "Raspberry Pi 4 Model B" in page and "python3 run.py photo.jpg" in page
    assert "| top1 | 0.5 |" in page and "teacher" not in page and "trtexec" not in page


def test_a_tensorrt_board_gets_its_own_command(resnet: Any, tmp_path: Path) -> None:
    write_bundle(
        tmp_path, model_file=resnet.file.path, classes=CLASSES, preprocess=Preprocess(height=48, width=48),
        device=load_device("jetson-orin-nano"), facts={"pattern": "2:4"},
    )  # fmt: skip
    page = (tmp_path / "README.md").read_text()
    assert "trtexec --onnx=model.onnx --int8 --fp16 --sparsity=enable --shapes=input:1x3x48x48" in page


def test_a_model_already_in_the_folder_is_not_copied(resnet: Any, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(resnet.file.path.read_bytes())
    before = model.stat().st_mtime_ns
    files = write_bundle(
        tmp_path, model_file=model, classes=CLASSES, preprocess=Preprocess(height=48, width=48),
        device=load_device("raspberry-pi-5"), facts={},
    )  # fmt: skip
    assert files[0] == model and model.stat().st_mtime_ns == before


def test_labels_and_preprocessing_that_do_not_fit_are_refused(resnet: Any, tmp_path: Path) -> None:
    common = {"model_file": resnet.file.path, "device": load_device("raspberry-pi-5"), "facts": {}}
    with pytest.raises(ExportError, match="labels do not fit the logits"):
        write_bundle(tmp_path, classes=CLASSES[:3], preprocess=Preprocess(height=48, width=48), **common)
    with pytest.raises(ExportError, match="preprocessing does not fit the input"):
        write_bundle(tmp_path, classes=CLASSES, preprocess=Preprocess(height=64, width=64), **common)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(48, 48), (97, 61), (50, 201), (31, 20)])
@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(height=48, width=48),
        Preprocess(height=48, width=48, crop_pct=0.875, interpolation="bilinear"),
        Preprocess(height=40, width=56, crop_pct=0.95, interpolation="lanczos"),
        Preprocess(height=32, width=48, crop_mode="squash", interpolation="nearest"),
        Preprocess(height=28, width=28, channels=1, mean=(0.28,), std=(0.35,), crop_pct=0.8),
    ],
    ids=["plain", "crop", "wide", "squash", "gray"],
)
def test_the_script_prepares_images_exactly_as_the_library(
    folder: Path, tmp_path: Path, mode: str, size: tuple[int, int], preprocess: Preprocess
) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    photo(size, mode).save(path)
    with Image.open(path) as image:
        expected = preprocess(image)
    written = load_script(folder).load_image(str(path), preprocess.model_dump(mode="json"))
    assert written.dtype == np.float32 and np.array_equal(written, expected)


@pytest.mark.parametrize("orientation", range(10))
def test_the_script_sets_pictures_upright_as_the_library_does(
    folder: Path, tmp_path: Path, orientation: int
) -> None:
    path, preprocess = tmp_path / "image.jpg", Preprocess(height=40, width=56)
    exif = Image.Exif()
    exif[274] = orientation
    photo((70, 50), "RGB").save(path, exif=exif)
    with Image.open(path) as image:
        expected = preprocess(ImageOps.exif_transpose(image))  # values outside of 1 to 8 mean nothing
        lying = preprocess(image)
    written = load_script(folder).load_image(str(path), preprocess.model_dump(mode="json"))
    assert np.array_equal(written, expected)
    assert np.array_equal(preprocess(decode(path, "x")), expected)
    assert np.array_equal(expected, lying) == (orientation in (0, 1, 9))


def run(
    folder: Path, *arguments: str | Path, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [python, "-I", folder / "run.py", *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        env=environment,
    )


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"photo {k}.png" for k in range(3)]
    for k, path in enumerate(paths):
        photo((80 + 11 * k, 64), MODES[k], seed=k).save(path)
    return paths


def expected_answers(folder: Path, photos: list[Path]) -> list[tuple[str, float]]:
    preprocess = Preprocess(height=48, width=48, crop_pct=0.9)
    answers = []
    for path in photos:
        with Image.open(path) as image:
            logits = open_session(folder / "model.onnx").run(None, {"input": preprocess(image)[None]})[0]
        chances = torch.softmax(torch.from_numpy(logits[0]).double(), 0)
        answers.append((CLASSES[int(chances.argmax())], float(chances.max())))
    return answers


def test_it_prints_the_label_first(folder: Path, photos: list[Path]) -> None:
    result = run(folder, *photos, "--threads", "1")
    assert result.returncode == 0 and result.stderr == ""
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    for (label, chance), line, path in zip(expected_answers(folder, photos), lines, photos, strict=True):
        assert line[0] == label and float(line[1]) == pytest.approx(chance, abs=1e-3) and line[2] == str(path)


def test_it_prints_several_labels_and_json(folder: Path, photos: list[Path]) -> None:
    top = [line.split("\t") for line in run(folder, photos[0], "--top", "3").stdout.splitlines()]
    assert len(top) == 3 and float(top[0][1]) >= float(top[1][1]) >= float(top[2][1])
    answers = json.loads(run(folder, *photos, "--top", "10", "--json").stdout)
    assert [answer["input"] for answer in answers] == [str(path) for path in photos]
    for answer in answers:
        assert sum(entry["probability"] for entry in answer["predictions"]) == pytest.approx(1.0)
        assert {entry["label"] for entry in answer["predictions"]} == set(CLASSES)


def test_bad_images_are_one_line_each_and_the_rest_goes_on(
    folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    text, deep, missing = tmp_path / "text.jpg", tmp_path / "deep.png", tmp_path / "missing.png"
    text.write_text("not an image")
    Image.fromarray(np.full((60, 60), 40_000, np.uint16)).save(deep)
    result = run(folder, text, photos[0], deep, missing)
    assert result.returncode == 2
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [
        str(text),
        str(deep),
        str(missing),
    ]
    assert result.stderr.endswith(f"{missing}: No such file or directory\n")
    assert len(result.stdout.splitlines()) == 1
    assert run(folder, photos[0], "--top", "0").returncode == 2


def test_a_reader_that_leaves_early_is_no_error(folder: Path, photos: list[Path]) -> None:
    command = [sys.executable, folder / "run.py", *photos]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # long before the first line is printed
    assert (process.wait(timeout=60), process.stderr.read()) == (0, b"")


def test_a_broken_model_is_one_line(folder: Path, photos: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:1000])
    result = run(copy, photos[0])
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1 and "model.onnx" in result.stderr
    (copy / "labels.json").unlink()
    result = run(copy, photos[0])
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result.stderr
    assert "copy this folder as a whole" in result.stderr and "labels.json" in result.stderr


@pytest.mark.slow
def test_it_runs_where_nothing_but_three_packages_is_installed(
    folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    """In a fresh environment, and with no trace of torch, edgekd or onnx in it."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = str(environment / "bin" / "python")
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in ("onnxruntime", "numpy", "Pillow")]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *versions], check=True, capture_output=True)
    for absent in ("torch", "edgekd", "onnx"):
        assert subprocess.run([python, "-I", "-c", f"import {absent}"], capture_output=True).returncode == 1
    result = run(folder, *photos, "--threads", "1", python=python)
    assert result.returncode == 0, result.stderr
    labels = [line.split("\t")[0] for line in result.stdout.splitlines()]
    assert labels == [label for label, _ in expected_answers(folder, photos)]
