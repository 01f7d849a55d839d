"""Networks far smaller than any published: estimated beside measured here, estimated beside emulated for a board.

    python -m benchmarks.latency.small_nets [--emulate raspberry-pi-4b]

One thread here. Nothing is fitted on what this prints.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

ROUNDS, RUNS = 7, 100


def networks() -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Name to a module and the shape of its input."""
    from torch import nn

    from edgekd.models.torchvision_shim import ensure_torchvision_ops
    from edgekd.recipes.fashion_nets import student

    ensure_torchvision_ops()
    import timm

    def step(inputs: int, outputs: int, kernel: Any, padding: Any, **other: int) -> nn.Module:
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False, **other)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    spotting = [step(1, 64, (10, 4), (5, 1), stride=2)]
    for _ in range(4):
        spotting += [step(64, 64, 3, 1, groups=64), step(64, 64, 1, 0)]
    digits = [
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    head = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    linear = [nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)]
    return {
        "two linear layers": (nn.Sequential(*linear), (1, 28, 28)),
        "LeNet-5": (nn.Sequential(*digits, nn.Flatten(), *head), (1, 28, 28)),
        "DS-CNN": (nn.Sequential(*spotting, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12)), (1, 49, 10)),
        "demo's student": (student(), (1, 28, 28)),
        "mobilenetv3_small_050, 64 px": (timm.create_model("mobilenetv3_small_050"), (3, 64, 64)),
        "mobilenetv2_035, 96 px": (timm.create_model("mobilenetv2_035"), (3, 96, 96)),
    }  # fmt: skip


def measured(file: Path, shape: tuple[int, ...]) -> float:
    """Milliseconds on one thread: the quietest round's median."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    feeds = {"input": np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)}
    medians = []
    for _ in range(ROUNDS):
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            session.run(None, feeds)
            times.append(time.perf_counter() - start)
        medians.append(statistics.median(times))
    return 1000 * min(medians)


def main() -> None:
    import torch

    from edgekd.profiles import emulate, estimate

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--emulate", metavar="BOARD", help="also this board, estimated and emulated")
    board = parser.parse_args().emulate
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (net, shape) in networks().items():
            file = Path(folder) / "net.onnx"
            torch.onnx.export(
                net.eval(), (torch.zeros(1, *shape),), str(file), dynamo=False, opset_version=17,
                input_names=["input"],
            )  # fmt: skip
            here = estimate(file, "cpu", threads=1)
            macs = sum(operator.macs for operator in here.operators) / 1e6
            line = f"{name}: {macs:.2f} M, measured {measured(file, shape):.3f}, estimated {here.p50_ms:.3f}"
            print(f"{line} ({here.low_ms:.3f}..{here.high_ms:.3f})", flush=True)
            for how in (estimate, emulate) if board else ():
                found = how(file, board)
                print(
                    f"    {board} {found.kind} {found.p50_ms:.3f} ({found.low_ms:.3f}..{found.high_ms:.3f})"
                )


if __name__ == "__main__":
    main()
