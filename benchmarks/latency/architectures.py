"""Write ``architectures.json.gz``: the fused operators of the models in ``published.csv``.

Each definition is exported with random weights and read back by the code that reads a user's file. Layers of
ncnn's own networks come from its ``.param`` files. What cannot be rebuilt here keeps the entry that it has.

    git clone https://github.com/Tencent/ncnn /tmp/ncnn
    git clone https://github.com/WongKinYiu/yolov7 /tmp/yolov7
    pip install ultralytics effdet            # optional: YOLO and EfficientDet
    python -m benchmarks.latency.architectures --ncnn /tmp/ncnn/benchmark/models --yolov7 /tmp/yolov7/cfg
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

from benchmarks.latency.architecture_sources import NCNN, find_builder
from benchmarks.latency.architecture_table import (
    TABLE,
    Key,
    canonical_shape,
    read_architectures,
    write_architectures,
)
from benchmarks.latency.ncnn_param import read_param
from edgekd.profiles.estimate.operators import Workload
from edgekd.profiles.estimate.workload import read_workload

PUBLISHED = Path(__file__).with_name("published.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ncnn", type=Path, help="ncnn's folder benchmark/models")
    parser.add_argument("--yolov7", type=Path, help="YOLOv7's folder cfg")
    parser.add_argument("--only", default=".*", help="models whose name matches this expression")
    parser.add_argument("--missing", action="store_true", help="only what the table does not have yet")
    parser.add_argument("--onnx", type=Path, help="keep the exported files there, <model>.onnx")
    options = parser.parse_args()
    table = read_architectures() if TABLE.exists() else {}
    for model, shape in published_keys():
        if re.fullmatch(options.only, model) and not (options.missing and (model, shape) in table):
            built = _built(model, shape, options)
            table = {**(read_architectures() if TABLE.exists() else {}), **built}  # another process may write too
            write_architectures(table)
    rows = _rows()
    known = [row for row in rows if (row["model"], canonical_shape(row["input_shape"])) in table]
    print(f"{len(table)} tables; they cover {len(known)} of {len(rows)} published rows")


def published_keys() -> list[Key]:
    """Model and shape, the most frequent first."""
    counted = Counter((row["model"], canonical_shape(row["input_shape"])) for row in _rows())
    return [key for key, _ in counted.most_common()]


def _rows() -> list[dict[str, str]]:
    with PUBLISHED.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _built(model: str, shape: str, options: argparse.Namespace) -> dict[Key, Workload]:
    sizes = tuple(int(size) for size in shape.split("x"))
    found: dict[Key, Workload] = {}
    if options.ncnn is not None and model in NCNN and sizes[2:] == _ncnn_size(model):
        source = f"github Tencent/ncnn benchmark/models/{NCNN[model]}.param"
        operators = read_param(options.ncnn / f"{NCNN[model]}.param", sizes)
        found[f"{model}@ncnn", shape] = Workload(operators, inputs={"input": sizes}, source=source)
    try:
        builder = find_builder(model, options.yolov7)
        if builder is not None:
            source, build = builder
            found[model, shape] = replace(_exported(build(sizes), model, sizes, options.onnx), source=source)
    except ImportError as error:
        print(f"{model} {shape}: {error}", file=sys.stderr)
    except Exception as error:  # one network that does not export must not stop the others
        print(f"{model} {shape}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
    if (model, shape) not in found and (f"{model}@ncnn", shape) in found:
        found[model, shape] = found[f"{model}@ncnn", shape]
    for key, workload in found.items():
        print(
            f"{key[0]} {key[1]}: {workload.macs / 1e6:.1f} MMACs, {workload.weight_elements / 1e6:.2f} M weights, "
            f"{len(workload.operators)} operators"
        )
    return found


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


def _exported(module: Any, model: str, sizes: tuple[int, ...], keep: Path | None) -> Workload:
    import torch

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = (keep or Path(folder)) / f"{model}.onnx"
        torch.onnx.export(
            module.eval(), (torch.zeros(sizes),), str(path), dynamo=False, opset_version=17,
            input_names=["input"],
        )  # fmt: skip
        return read_workload(path)


if __name__ == "__main__":
    from edgekd.models.torchvision_shim import ensure_torchvision_ops

    ensure_torchvision_ops()
    main()
