"""What a GPU takes for an inference, before fitted parameters: tensor or CUDA cores, memory, launches."""

from __future__ import annotations

import numpy as np

from edgekd.profiles.estimation.graphics import Gpu
from edgekd.profiles.estimation.op_table import FREE, PRODUCTS, Floats, Ints, OpTable
from edgekd.profiles.estimation.operators import FAMILIES
from edgekd.profiles.estimation.runtimes import RuntimeKind, covered
from edgekd.profiles.estimation.terms import COMPUTE, MEMORY, OVERHEAD, Feature, Terms

_BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0}
# What a launch costs at 1 GHz; what is paid once costs as many launches.
_LAUNCH = 5e-6
_ONCE = 20
# Output pixels times channels that one multiprocessor works on at a time.
_TILE = 128 * 64
# NVIDIA on 2:4 weights in TensorRT on an Orin GPU: "usually about 15 %", for convolutions of 256 channels or more.
_SPARSE_GAIN = 1.15
_SPARSE_CHANNELS = 256


def gpu_terms(table: OpTable, gpu: Gpu, runtime: RuntimeKind, precision: str) -> Terms:
    """The terms of one inference on a GPU."""
    terms = Terms(table.count)
    kinds = np.full(table.size, "fp16" if precision == "int8" else precision, dtype="<U4")
    if precision == "int8" and gpu.op8:
        kinds[covered(table, runtime)] = "int8"
    storage = np.asarray([_BYTES[str(kind)] for kind in kinds])
    free = np.isin(table.family, [FAMILIES.index(name) for name in FREE])
    # A pointwise operator behind a product runs in the product's kernel: it reads its other input, if it has one.
    alone = ~free & ~table.fusable
    for family in PRODUCTS:
        for kind in ("fp32", "fp16", "int8"):
            ops = table.of(family)
            ops = ops[kinds[ops] == kind]
            if len(ops):
                _product_terms(terms, table, ops, family, kind, gpu, runtime)
    _memory(terms, table, storage, alone, gpu, runtime)
    launched = np.flatnonzero(alone)
    terms.add(launched, OVERHEAD, np.full(len(launched), _LAUNCH / gpu.ghz), _spread("launch", runtime, gpu))
    terms.once(_ONCE * _LAUNCH / gpu.ghz, _spread("once", runtime, gpu))
    return terms


def _product_terms(
    terms: Terms, table: OpTable, ops: Ints, family: str, kind: str, gpu: Gpu, runtime: RuntimeKind
) -> None:
    light = family == "conv-depthwise"
    peak = 1e9 * (gpu.flop32 * gpu.kind.fp16_rate / 2 if light else _peak(gpu, kind))
    depth, columns = table.depth[ops], table.columns[ops]
    if not light:
        depth, columns = np.ceil(depth / 8) * 8, np.ceil(columns / 16) * 16
    flops = 2 * table.rows[ops] * depth * columns * table.groups[ops]
    if runtime.name == "tensorrt" and gpu.kind.sparse and kind != "fp32":
        wide = np.minimum(table.depth[ops], table.columns[ops]) >= _SPARSE_CHANNELS
        flops = np.where(table.sparse[ops] & wide, flops / _SPARSE_GAIN, flops)
    formats = _spread(f"mac/{family}/{kind}", runtime, gpu)
    terms.add(ops, COMPUTE, flops / peak, [*_spread(f"mac/{family}", runtime, gpu), *formats])
    if not light:
        # However little there is to do, one multiprocessor works through the whole depth of one tile.
        tile = 2 * depth * _TILE / (peak / gpu.sms)
        terms.add(
            ops, COMPUTE, tile, [*_spread("tile", runtime, gpu), *_spread(f"tile/{kind}", runtime, gpu)]
        )


def _memory(
    terms: Terms, table: OpTable, storage: Floats, alone: np.ndarray, gpu: Gpu, runtime: RuntimeKind
) -> None:
    ops = np.arange(table.size)
    cache, rate = gpu.l2_kib * 1024, gpu.bandwidth * 1e9
    weights = table.weights * storage
    moved = (
        np.where(alone, table.inputs + table.outputs, np.maximum(0, table.inputs - table.outputs)) * storage
    )
    moved[np.isin(table.family, [FAMILIES.index(name) for name in FREE])] = 0
    product = np.isin(table.family, [FAMILIES.index(name) for name in PRODUCTS])
    stays = 1 / (1 + (moved / cache) ** 2)
    terms.add(ops, MEMORY, weights / rate, _spread("memory/weights", runtime, gpu))
    for name, chosen in (("products", product), ("moves", ~product)):
        part = np.where(chosen, moved, 0)
        terms.add(ops, MEMORY, part * (1 - stays) / rate, _spread(f"memory/{name}", runtime, gpu))
        terms.add(ops, MEMORY, part * stays / rate / 3, _spread(f"cached/{name}", runtime, gpu))


def _peak(gpu: Gpu, kind: str) -> float:
    """Billions of operations a second. Since Ampere an fp32 network runs in TF32 on the tensor cores."""
    if kind == "int8" and gpu.op8:
        return gpu.op8
    if kind == "fp32":
        return gpu.flop16 / 4 if gpu.kind.generation in ("ampere", "blackwell") else gpu.flop32
    return gpu.flop16


def _spread(name: str, runtime: RuntimeKind, gpu: Gpu) -> list[Feature]:
    """A parameter of all GPU runtimes, with what runtime, tensor cores or none, and generation add to it."""
    kind = "tensor" if gpu.tensor_cores else "cuda"
    labels = [kind, gpu.kind.generation, *(label for label in runtime.chain if label != "tensorrt")]
    names = [name, *(f"{name}|{label}" for label in labels)]
    return [(each, 1.0) for each in names]
