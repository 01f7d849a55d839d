"""Scales by which an x86 and an Arm machine compute the same integers.

ONNX Runtime's kernels agree on all operations but sums and products of two tensors
(:mod:`edgekd.quant.byte_kernels`), and on those for most scales. Where a pair of bytes exists on which they do
not, the range of what is written is narrowed a little until none does: usually once, by 1/4096. The commonest such
pair was no accident: a hard sigmoid is 1/2 at zero, the middle between two of its 255 steps, and zero is the most
frequent value of all (2.5 % of a HardSwish network's values came out one step apart).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgekd.models.calls import Site, record_calls
from edgekd.quant.byte_kernels import Grid, same_on_arm
from edgekd.quant.exact_plan import Kernel, plan_kernels
from edgekd.quant.fake_quant import ActivationQuantizer
from edgekd.quant.gelu import LEAST, MOST
from edgekd.quant.hardswish import gate_of_bytes
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.simulate import range_key

SLOPE, OFFSET = float(np.float32(1 / 6)), 0.5  # of a hard sigmoid
# Of a GELU's gate.
GATE = Grid(float(np.float32(1 / (MOST - LEAST))), 0, MOST - LEAST, LEAST)
_SHARE = 1 - 2**-12
_STEPS = 40  # 1 % of the range at most


@dataclass(frozen=True)
class Settled:
    """
    Attributes:
        kernels: of the network, as :func:`edgekd.quant.exact_plan.plan_kernels` found them.
        narrowed: how many ranges changed.
        apart: sums and products that Arm may still round otherwise.
    """

    kernels: dict[Site, Kernel]
    narrowed: int
    apart: tuple[Site, ...]


@torch.no_grad()
def settle_scales(model: QuantizedModel, example: Tensor) -> Settled:
    """Narrow ranges of ``model``, in place, until x86 and Arm agree. What is settled stays as it is.

    Args:
        model: its ranges known; left in phase ``frozen``.
        example: as for :func:`edgekd.quant.qat.prepare_qat`.
    """
    model.set_phase("off")
    kernels = plan_kernels(record_calls(model.model, example), model.placement)
    model.set_phase("frozen")
    narrowed, apart = 0, []
    for site, kernel in kernels.items():
        if not model.scheme.quantize_bias or kernel.writes is None or kernel.kind in ("weighted", "mean"):
            continue
        steps = 0
        while not _settled(model, kernel) and steps < _STEPS:
            _quantizer(model, kernel.writes).narrow(_SHARE)
            steps += 1
        narrowed += bool(steps)
        if steps == _STEPS:
            apart.append(site)
    return Settled(kernels, narrowed, tuple(apart))


def grid_of(model: QuantizedModel, range_site: Site) -> Grid:
    """The integers of a range."""
    scale, zero = _quantizer(model, range_site).numbers()
    return Grid(scale, model.scheme.activation_min - zero, model.scheme.activation_max - zero, zero)


def line_of(x: Grid) -> tuple[Grid, Grid]:
    """What a hard sigmoid adds, as the file has it (``export/gates.py``): its input with the slope in the scale, and
    a constant, whose value is the largest integer."""
    most = x.high + x.zero
    return x._replace(scale=_float32(x.scale * SLOPE)), Grid(_float32(OFFSET / most), 0, most, 0)


def _settled(model: QuantizedModel, kernel: Kernel) -> bool:
    assert kernel.writes is not None
    out, *reads = (grid_of(model, each) for each in (kernel.writes, *kernel.reads))
    if kernel.kind == "line":
        line, offset = line_of(reads[0])
        return same_on_arm(False, line, offset, out, constant=offset.high)
    if kernel.kind == "gelu":
        return same_on_arm(True, reads[0], GATE, out)
    if kernel.kind == "hardswish":
        return same_on_arm(True, reads[0], gate_of_bytes(reads[0]), out)
    return same_on_arm(kernel.kind != "add", reads[0], reads[1], out)


def _quantizer(model: QuantizedModel, range_site: Site) -> ActivationQuantizer:
    found = model.quantizers[range_key(range_site)]
    assert isinstance(found, ActivationQuantizer)
    return found


def _float32(value: float) -> float:
    return float(np.float32(value))
