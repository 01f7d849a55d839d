"""Writes ``tiny.pte`` (ExecuTorch 1.5.1, XNNPACK) or ``tiny.tflite`` (litert-torch 0.10.0) beside this file.

The same small net, seeded: ``make_tiny.py pte`` where executorch is installed, ``make_tiny.py tflite`` where
litert-torch is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent


def main(kind: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)).eval()
    example = (torch.zeros(1, 3, 4, 4),)
    if kind == "pte":
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = to_edge_transform_and_lower(
            torch.export.export(net, example), partitioner=[XnnpackPartitioner()]
        ).to_executorch()
        (HERE / "tiny.pte").write_bytes(program.buffer)
    else:
        import litert_torch

        litert_torch.convert(net, example).export(str(HERE / "tiny.tflite"))


if __name__ == "__main__":
    main(sys.argv[1])
