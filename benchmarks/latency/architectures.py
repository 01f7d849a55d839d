"""Write ``architectures.json.gz``: the fused operators of the models in ``published.csv``.

Each definition is exported with random weights and read back by the code that reads a user's file. Layers of
ncnn's own networks come from its ``.param`` files. What cannot be rebuilt here keeps the entry that it has.

    git clone https://github.com/Tencent/ncnn ../ncnn
    git clone https://github.com/WongKinYiu/yolov7 ../yolov7
    pip install ultralytics effdet            # optional: YOLO and EfficientDet
    python -m benchmarks.latency.architectures --ncnn ../ncnn/benchmark/models --yolov7 ../yolov7/cfg
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.latency.architecture_sources import NCNN, Build, find_builder
from benchmarks.latency.architecture_table import (
    TABLE,
    Key,
    canonical_shape,
    read_architectures,
    write_architectures,
)
from benchmarks.latency.ncnn_param import read_param
from benchmarks.latency.nets.totals import stated_totals
from edgekd.profiles.estimation.operators import Workload
from edgekd.profiles.estimation.workload import read_workload

PUBLISHED = Path(__file__).with_name("published.csv")
_ANY_SIZE = re.compile(r"mobilenet_v[12].*|yolo.*")  # nothing in them is computed from the size of the input


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ncnn", type=Path, help="ncnn's folder benchmark/models")
    parser.add_argument("--yolov7", type=Path, help="YOLOv7's folder cfg")
    parser.add_argument("--only", default=".*", help="models whose name matches this expression")
    parser.add_argument("--missing", action="store_true", help="only what the table does not have yet")
    parser.add_argument("--onnx", type=Path, help="keep the exported files there, <model>.onnx")
    options = parser.parse_args()
    for model, shapes in published_models().items():
        known = _table()
        wanted = [shape for shape in shapes if not (options.missing and (model, shape) in known)]
        if wanted and re.fullmatch(options.only, model):
            built = {**_of_ncnn(model, wanted, options.ncnn), **_of_definition(model, wanted, options)}
            for shape in wanted:
                instead = built.get((f"{model}@ncnn", shape)) or stated_totals(model, shape)
                if instead is not None:
                    built.setdefault((model, shape), instead)
            write_architectures({**_table(), **built})  # another process may have written meanwhile
            _show(built)
    table = _table()
    rows = _rows()
    known = [row for row in rows if (row["model"], canonical_shape(row["input_shape"])) in table]
    print(f"{len(table)} tables; they cover {len(known)} of {len(rows)} published rows")


def published_models() -> dict[str, list[str]]:
    """The models and their shapes, the most frequent first."""
    counted = Counter((row["model"], canonical_shape(row["input_shape"])) for row in _rows())
    found: dict[str, list[str]] = {}
    for model, shape in (key for key, _ in counted.most_common()):
        found.setdefault(model, []).append(shape)
    return found


def _table() -> dict[Key, Workload]:
    return read_architectures() if TABLE.exists() else {}


def _rows() -> list[dict[str, str]]:
    with PUBLISHED.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _of_ncnn(model: str, shapes: list[str], folder: Path | None) -> dict[Key, Workload]:
    found = {}
    for shape in shapes:
        sizes = _sizes(shape)
        if folder is not None and model in NCNN and sizes[2:] == _ncnn_size(model):
            source = f"github Tencent/ncnn benchmark/models/{NCNN[model]}.param"
            operators = read_param(folder / f"{NCNN[model]}.param", sizes)
            found[f"{model}@ncnn", shape] = Workload(operators, inputs={"input": sizes}, source=source)
    return found


def _of_definition(model: str, shapes: list[str], options: argparse.Namespace) -> dict[Key, Workload]:
    """One network that does not export must not stop the others."""
    try:
        builder = find_builder(model, options.yolov7)
        if builder is None:
            return {}
        source, build = builder
        read = _exported_once if _ANY_SIZE.fullmatch(model) and len(shapes) > 1 else _exported_each
        found = read(build, model, shapes, options.onnx)
    except Exception as error:
        print(f"{model}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
        return {}
    return {(model, shape): replace(workload, source=source) for shape, workload in found.items()}


def _exported_each(build: Build, model: str, shapes: list[str], keep: Path | None) -> dict[str, Workload]:
    found = {}
    for shape in shapes:
        with tempfile.TemporaryDirectory() as folder:
            path = _export(build(_sizes(shape)), _sizes(shape), (keep or Path(folder)) / f"{model}.onnx")
            found[shape] = read_workload(path)
    return found


def _exported_once(build: Build, model: str, shapes: list[str], keep: Path | None) -> dict[str, Workload]:
    """At the smallest size, height and width left open."""
    small = min((_sizes(shape) for shape in shapes), key=lambda sizes: sizes[2])
    with tempfile.TemporaryDirectory() as folder:
        path = _export(
            build(small), small, Path(folder) / f"{model}.onnx", open_axes={2: "height", 3: "width"}
        )
        return {shape: read_workload(path, shape=_sizes(shape)[1:]) for shape in shapes}


def _export(module: Any, sizes: tuple[int, ...], path: Path, open_axes: dict[int, str] | None = None) -> Path:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (torch.zeros(sizes),), str(path), dynamo=False, opset_version=17,
            input_names=["input"], dynamic_axes={"input": open_axes} if open_axes else None,
        )  # fmt: skip
    return path


def _show(built: dict[Key, Workload]) -> None:
    for (model, shape), workload in built.items():
        macs, weights = workload.macs / 1e6, workload.weight_elements / 1e6
        count = len(workload.operators)
        print(f"{model} {shape}: {macs:.1f} MMACs, {weights:.2f} M weights, {count} operators", flush=True)


def _sizes(shape: str) -> tuple[int, ...]:
    return tuple(int(size) for size in shape.split("x"))


def _ncnn_size(model: str) -> tuple[int, int]:
    """Of the input that ncnn's benchncnn gives it."""
    side = {
        "alexnet": 227,
        "squeezenet_v1.1": 227,
        "blazeface": 128,
        "nanodet_m": 320,
        "yolo_fastest_1.1": 320,
    }
    side |= {"ssd_mobilenet_v1": 300, "ssd_squeezenet": 300, "mobilenet_yolo": 416, "yolov4_tiny": 416}
    side |= {"mobilenetv2_yolov3": 352, "yolo_fastestv2": 352, "fastestdet": 352}
    return (side.get(model, 224), side.get(model, 224))


if __name__ == "__main__":
    from edgekd.models.torchvision_shim import ensure_torchvision_ops

    ensure_torchvision_ops()
    main()
