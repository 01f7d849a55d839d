"""Half of the multiply-accumulates gone by channels: accuracy after distillation, and measured latency.

For each network: train it dense on labels, then prune channels with the dense network as teacher, then int8
training. Latency is of four files, interleaved, 1 thread: dense and pruned, fp32 and int8. Accuracies are on
Fashion-MNIST's 10,000 test images; epochs are chosen on the validation split.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from conditions import write

from edgekd.data.loader import eval_loader
from edgekd.data.open import open_data
from edgekd.data.source import Split
from edgekd.export.write import export_float, export_quantized
from edgekd.models.loaded import LoadedModel
from edgekd.models.resolve import resolve_model
from edgekd.pipeline import compress
from edgekd.profiles import measure
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import get_scheme
from edgekd.recipe import DataRecipe, InputRecipe
from edgekd.recipe_file import parse_recipe

HERE = Path(__file__).parent
AUGMENT = {"crop_padding": 2, "hflip": 0.5}
TRAIN = {"batch_size": 128, "weight_decay": 0.05, "ema_decay": 0.99, "augment": AUGMENT}
CACHE = {"teacher_cache": True, "cache_slots": 2}
KD = {"kd": {"temperature": 3}, "ce": {"weight": 0.2}}
OPSET = 20


def run(
    name: str, out: Path, data: dict[str, Any], stages: list[dict[str, Any]], **models: Any
) -> list[dict[str, Any]]:
    """One recipe; the metrics of its stages."""
    document = {
        "name": name, "data": data, "stages": stages, "export": {"min_coverage": 0, "parity_samples": 256},
        "profile": {"rounds": 1, "runs": 5, "warmup": 1}, **models,
    }  # fmt: skip
    compress(parse_recipe(document, where=name), out, base=HERE)
    return [json.loads((path / "metrics.json").read_text()) for path in sorted((out / "stages").iterdir())]


def files_of(label: str, loaded: LoadedModel, images: list[torch.Tensor], folder: Path) -> dict[str, Path]:
    """fp32 and int8 files of one network; the int8 one is calibrated alone, which its speed does not see."""
    example = torch.zeros(2, *loaded.preprocess.input_shape)  # type: ignore[union-attr]
    files = {f"{label} fp32": folder / f"{label}-fp32.onnx", f"{label} int8": folder / f"{label}-int8.onnx"}
    export_float(loaded.module, example, files[f"{label} fp32"], opset=OPSET)
    quantized = prepare_qat(loaded.module, example, get_scheme("u8s8"))
    quantized.calibrate(images)
    export_quantized(quantized, example, files[f"{label} int8"], opset=OPSET)
    return files


def one(net: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    begun = time.perf_counter()
    data = {"path": "builtin:fashion-mnist", "max_train": options.train, "max_test": options.test}
    spec = f"torch:pruning_nets.py:{net}"
    dense_stage = {"distill": {**TRAIN, "epochs": options.dense_epochs, "lr": 2e-3, "objectives": {"ce": {}}}}
    dense = run(f"{net}-dense", scratch / "dense", data, [dense_stage], teacher=None, student=spec)
    prune = {
        **TRAIN, **CACHE, "method": "channels", "macs": 0.5, "round_to": options.round_to, "saliency": options.saliency,
        "scope": options.scope, "steps": options.steps, "epochs": options.epochs, "lr": 1e-3, "objectives": KD,
    }  # fmt: skip
    quantize = {**TRAIN, **CACHE, "epochs": 1, "lr": 1e-4, "objectives": KD}
    teacher = scratch / "dense" / "stages" / "02-distill"
    stages = run(f"{net}-pruned", scratch / "pruned", data, [{"prune": prune}, {"quantize": quantize}],
                 teacher=str(teacher), student="same")  # fmt: skip
    opened = open_data(DataRecipe(**data), base=HERE)
    files: dict[str, Path] = {}
    for label, folder in (("dense", teacher), ("pruned", scratch / "pruned" / "stages" / "02-prune")):
        loaded = resolve_model(str(folder), classes=10, input=InputRecipe(), base=HERE, where=label)
        split = Split("calibration", opened.train.source, opened.train.indices[:256])
        images = [
            batch["inputs"] for batch in eval_loader(split, loaded.preprocess, batch_size=64, workers=0)
        ]
        files |= files_of(label, loaded, images, scratch)
    found = measure(files, threads=1, rounds=options.rounds, runs=60, warmup=10)
    falls = {}
    for precision in ("fp32", "int8"):
        ratio = found.ratio(f"dense {precision}", f"pruned {precision}")
        falls[precision] = {
            "falls_by": 1 - 1 / ratio.value,
            "between": [1 - 1 / ratio.low, 1 - 1 / ratio.high],
        }
    top1 = {"dense": dense[-1]["metrics"]["top1"], "pruned": stages[2]["metrics"]["top1"],
            "pruned int8": stages[3]["metrics"]["top1"]}  # fmt: skip
    return {
        "macs": [stages[0]["macs"], stages[2]["macs"]],
        "macs_left": stages[2]["macs"] / stages[0]["macs"],
        "params_left": stages[2]["params"] / stages[0]["params"],
        "top1": top1,
        "points_lost": 100 * (top1["dense"] - top1["pruned"]),
        "points_lost_int8": 100 * (top1["dense"] - top1["pruned int8"]),
        "p50_ms": {label: report.p50_ms for label, report in found.reports.items()},
        "latency": falls,
        "seconds": time.perf_counter() - begun,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=["resnet18", "mobilenetv2"])
    parser.add_argument("--train", type=int, default=12_000, help="training images")
    parser.add_argument("--test", type=int, default=10_000, help="test images")
    parser.add_argument("--dense-epochs", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=4, help="after the last cut; one after each before")
    parser.add_argument("--steps", type=int, default=2, help="cuts")
    parser.add_argument("--saliency", default="l2", choices=["l1", "l2", "taylor", "bn-scale"])
    parser.add_argument("--scope", default="uniform", choices=["uniform", "global"])
    parser.add_argument("--round-to", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    result: dict[str, Any] = {
        "settings": {key: value for key, value in vars(options).items() if key != "nets"}
    }
    for net in options.nets:
        with tempfile.TemporaryDirectory() as scratch:
            result[net] = one(net, options, Path(scratch))
    write("channel_pruning", result)


if __name__ == "__main__":
    main()
