"""Does a measurement repeat? One file in five fresh processes, one after another: how far apart are the medians?

Run it on a quiet machine; where others use it too, ``chrt -r 5`` in front keeps them off the core. What the runs
warned of is written beside the medians: a spread on a loaded core says nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgekd.profiles import measure

BAR = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "model", nargs="?", type=Path, help="an ONNX file; else timm's mobilenetv2_100 is written"
    )
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each process, at most")
    parser.add_argument("--target", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--once", action="store_true", help="one measurement, as JSON: what each process runs"
    )
    options = parser.parse_args()
    if options.once:
        print(json.dumps(once(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or mobilenet(Path(folder) / "mobilenetv2_100.onnx")
        rows = [fresh(path, options) for _ in range(options.processes)]
    from conditions import write

    medians = [row["p50_ms"] for row in rows]
    spread = (max(medians) - min(medians)) / statistics.median(medians)
    write(
        f"local-spread-{path.stem}-{options.threads}-thread",
        {
            "p50_ms": medians,
            "p50_interval_ms": [row["p50_interval_ms"] for row in rows],
            "samples": [row["samples"] for row in rows],
            "rounds": [len(row["round_medians_ms"]) for row in rows],
            "scheduler": scheduler(),
            "warnings": sorted({kind for row in rows for kind in row["warning_kinds"]}),
            "spread": spread,
            "bar": BAR,
            "passed": spread <= BAR,
        },
    )
    for text in dict.fromkeys(text for row in rows for text in row["warnings"]):
        print(f"warning: {text}", file=sys.stderr)


def once(options: argparse.Namespace) -> dict[str, Any]:
    found = measure(
        {"model": options.model}, threads=options.threads, seconds=options.seconds, target=options.target
    )
    return found.reports["model"].to_json()


def fresh(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The same measurement in a process of its own; the scheduling policy is inherited."""
    command = [
        sys.executable, __file__, str(path), "--once", f"--threads={options.threads}",
        f"--seconds={options.seconds}", f"--target={options.target}",
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout)
    print(f"p50 {row['p50_ms']:.3f} ms from {row['samples']} samples", file=sys.stderr)
    return row


def scheduler() -> str:
    names = {
        os.SCHED_OTHER: "other",
        os.SCHED_FIFO: "fifo",
        os.SCHED_RR: "round-robin",
        os.SCHED_BATCH: "batch",
    }
    return names.get(os.sched_getscheduler(0), "unknown")


def mobilenet(path: Path) -> Path:
    """Fresh weights with seed 0: speed does not depend on them."""
    from edgekd.models.torchvision_shim import ensure_torchvision_ops

    ensure_torchvision_ops()
    import timm
    import torch

    from edgekd.export.write import export_float

    torch.manual_seed(0)
    model = timm.create_model("mobilenetv2_100", pretrained=False).eval()
    export_float(model, torch.zeros(1, 3, 224, 224), path, opset=17)
    return path


if __name__ == "__main__":
    main()
