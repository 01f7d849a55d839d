"""What exchanged activations cost in accuracy once distillation has worked on them: Fashion-MNIST, trained weights.

For nets of SiLU, GELU and HardSwish (``exchange_nets.py``): train in fp32 on labels, then the shipped recipe
``same-fast`` from that teacher (distil, 2:4, int8) twice, with the net's own activations and with ReLU in their
place; all else, the seed and the number of steps too, is equal. Beside them the fp32 net after the same steps
of distillation: the arms train on, so they are not compared with the teacher alone. Epochs are chosen on the
validation split; nothing is chosen on the test split. Latency: the three files interleaved, 1 thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from conditions import write

from edgekd.pipeline import compress
from edgekd.profiles import measure
from edgekd.recipe_file import apply_overrides, parse_recipe, read_document, shipped_recipes

HERE = Path(__file__).parent
NETS = {"efficientnet": "silu", "convnext": "gelu", "mobilenetv3": "hardswish"}
OWN = "own activations"
ARMS = {OWN: {}, "exchanged": "relu"}
TRAIN = {
    "batch_size": 128,
    "weight_decay": 0.05,
    "ema_decay": 0.99,
    "augment": {"crop_padding": 2, "hflip": 0.5},
}
CACHE = {"teacher_cache": True, "cache_slots": 2}


def run(document: dict[str, Any], out: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """``document`` on the benchmark's data; the deployed file's entry of the report, and each stage's top-1."""
    document |= {
        "seed": seed,
        "data": {"path": "builtin:fashion-mnist", "max_train": options.train, "max_test": options.test},
        "export": {"choose": "as-trained", "parity_samples": 1000},
        "profile": {"rounds": 1, "runs": 5, "warmup": 1},
    }
    if not (out / "report.json").exists():
        compress(parse_recipe(document, where=out.name), out, base=HERE, resume=True)
    report = json.loads((out / "report.json").read_text())
    entry: dict[str, Any] = report["deploy"][0]
    entry["stages"] = {stage["name"]: stage["metrics"]["top1"] for stage in report["stages"]}
    return entry


def teach(net: str, scratch: Path, options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The net trained on labels: its folder, and its fp32 file's entry."""
    stage = {**TRAIN, "epochs": options.teacher_epochs, "lr": 2e-3, "objectives": {"ce": {}}}
    document = {
        "name": net, "teacher": None, "student": f"torch:exchange_nets.py:{net}", "stages": [{"distill": stage}],
    }  # fmt: skip
    out = scratch / f"{net}-fp32"
    return out / "stages" / "02-distill", run(document, out, 0, options)


def arm(teacher: Path, exchange: Any, out: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """``same-fast`` with shorter stages; ``exchange`` is its ``distill.substitute``."""
    document = apply_overrides(read_document(shipped_recipes()["same-fast"]), [])
    epochs = dict(zip(("distill", "prune", "quantize"), options.epochs, strict=True))
    for stage in document["stages"]:
        ((kind, settings),) = stage.items()
        settings |= {**TRAIN, **CACHE, "epochs": epochs[kind]}
        if kind == "distill":
            settings["substitute"] = exchange
    return run({**document, "teacher": str(teacher)}, out, seed, options)


def one(net: str, scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    folder, trained = teach(net, scratch, options)
    row: dict[str, Any] = {"activation": NETS[net], "top1": {"fp32": [trained["metrics"]["top1"]]}}
    files = {"fp32": scratch / f"{net}-fp32" / trained["file"]}
    for seed in options.seeds if not options.teachers_only else []:
        for name, exchange in ARMS.items():
            out = scratch / f"{net}-{name.split()[0]}-{seed}"
            entry = arm(folder, exchange, out, seed, options)
            row["top1"].setdefault(name, []).append(entry["metrics"]["top1"])
            if (
                name == OWN
            ):  # the same steps of distillation as both arms, nothing exchanged, pruned or rounded
                row["top1"].setdefault("fp32, distilled", []).append(entry["stages"]["distill"])
            row.setdefault("2:4 violations", []).append(entry["sparsity"]["violations"])
            files.setdefault(name, out / entry["file"])
            print(f"{net}, seed {seed}, {name}: {100 * entry['metrics']['top1']:.2f} %", flush=True)
    found = measure(files, threads=1, rounds=options.rounds, runs=60, warmup=10)
    row["p50_ms"] = {name: round(report.p50_ms, 4) for name, report in found.reports.items()}
    row["speedup"] = {}
    for name in files:
        ratio = found.ratio("fp32", name)
        row["speedup"][name] = [round(value, 3) for value in (ratio.value, ratio.low, ratio.high)]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=list(NETS), help=", ".join(NETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train", type=int, default=12_000, help="images, validation included")
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--teacher-epochs", type=int, default=10)
    parser.add_argument("--epochs", type=int, nargs=3, default=[10, 3, 2], help="distil, prune, quantize")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--teachers-only", action="store_true")
    parser.add_argument("--scratch", type=Path, help="a folder that is kept: a killed run goes on from it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = options.scratch or Path(temporary)
        rows = {net: one(net, scratch, options) for net in options.nets}
    if options.teachers_only:
        print(json.dumps(rows, indent=2))
        return
    settings = {name: value for name, value in vars(options).items() if name not in ("scratch", "nets")}
    write("exchanged-fashion-mnist", {"settings": settings, "nets": rows})


if __name__ == "__main__":
    main()
