"""Defective solar cells (ELPV): EfficientNet-Lite0 fine-tuned in fp32, then int8 by QAT. AUC of both files.

ImageNet weights, 2,624 gray pictures of 300 px shrunk to 150 px. The data is CC-BY-NC-SA. The bar: QAT's
deployed file within 0.5 points AUC of the fp32 fine-tuned one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from conditions import write
from lite_nets import PACKAGES
from packages import importable, unpacked

from edgekd.data.open import open_data
from edgekd.evaluation import onnx_logits
from edgekd.pipeline import compress
from edgekd.preprocess import Preprocess
from edgekd.recipe import DataRecipe
from edgekd.recipe_file import parse_recipe

_DATA = "elpv-dataset==1.0.0.post1"
_BAR = 0.005
_AUGMENT = {"hflip": 0.5, "random_resized_crop": [0.8, 1.0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--qat-epochs", type=int, default=2)
    parser.add_argument("--max-train", type=int, default=None)
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--work", type=Path, default=None, help="keep the runs here, and go on with them")
    options = parser.parse_args()
    for requirement in (PACKAGES["code"], PACKAGES[0]):
        unpacked(requirement)
    importable(_DATA)
    data = {"path": "builtin:elpv", "max_train": options.max_train, "test_fraction": 0.25}
    common = {
        "data": data,
        "input": {"size": options.size, "channels": 3},
        "export": {"choose": "as-trained"},
        "profile": {"rounds": 3, "runs": 15, "warmup": 4},
    }
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        tuned = _run(work / "fp32", common, {
            "name": "solar-fp32",
            "teacher": None,
            "student": f"torch:{Path(__file__).with_name('lite_nets.py')}:solar",
            "stages": [{"distill": {"epochs": options.epochs, "batch_size": 32, "lr": 5e-4, "weight_decay": 0.01,
                                    "objectives": {"ce": {}}, "augment": _AUGMENT}}],
        })  # fmt: skip
        model = str(next((tuned / "stages").glob("*-distill")))
        results = {}
        for method, stage in (
            ("qat", {"epochs": options.qat_epochs, "batch_size": 32, "lr": 5e-5, "weight_decay": 0.0,
                     "augment": _AUGMENT, "objectives": {"kd": {"temperature": 2}, "ce": {"weight": 0.2}}}),
            ("ptq", {"method": "ptq"}),
        ):  # fmt: skip
            run = _run(work / method, common, {
                "name": f"solar-{method}", "teacher": model, "stages": [{"quantize": stage}],
            })  # fmt: skip
            results[method] = _result(run, data, options.size)
        fp32 = _auc(tuned / "deploy" / "cpu" / "model.onnx", data, tuned)
    drop = fp32 - results["qat"]["auc"]
    write("solar_qat", {"fp32_auc": fp32, "drop": drop, "bar": _BAR, "met": drop <= _BAR, **results})


def _run(out: Path, common: dict[str, Any], document: dict[str, Any]) -> Path:
    def progress(what: str, done: int, total: int) -> None:
        if done == total:
            print(f"{document['name']}: {what}", flush=True)

    compress(
        parse_recipe({**common, **document}, where=document["name"]),
        out,
        resume=out.exists(),
        progress=progress,
    )
    return out


def _result(run: Path, data: dict[str, Any], size: int) -> dict[str, Any]:
    report = json.loads((run / "report.json").read_text())
    entry = report["deploy"][0]
    return {
        "auc": _auc(run / "deploy" / "cpu" / "model.onnx", data, run),
        "top1": entry["metrics"]["top1"],
        "agreement": entry["metrics"]["agreement"],
        "speedup_vs_fp32": entry["speedup_vs_student_fp32"],
        "size_bytes": entry["size_bytes"],
        "seconds": report["seconds"],
        "pixels": size,
    }


def _auc(file: Path, data: dict[str, Any], run: Path) -> float:
    """Area under the ROC curve of the defective class on the test split, of the file as it runs."""
    from sklearn.metrics import roc_auc_score

    test = open_data(DataRecipe(**data), base=Path()).test
    stage = sorted((run / "stages").glob("0*"))[-1]
    preprocess = Preprocess.model_validate(json.loads((stage / "model.json").read_text())["preprocess"])
    logits = onnx_logits(file, test, preprocess)
    return float(roc_auc_score(test.labels, np.subtract(logits[:, 1], logits[:, 0])))


if __name__ == "__main__":
    main()
