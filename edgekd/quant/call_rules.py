"""What is true of one call of the network in integers: which operations have kernels, what a kernel does on the way.

These tables and :mod:`edgekd.quant.placement` say where Q/DQ stands; no architecture is named.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from edgekd.models.calls import Call, CallGraph, Site

WEIGHTED = frozenset({"conv2d", "linear"})
INTEGER_OPS = WEIGHTED | {
    "add",
    "mul",
    "cat",
    "matmul",
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "max_pool2d",
    "mean",
}
FUSES_ACTIVATION = WEIGHTED | {"add"}
FUSED_ACTIVATIONS = frozenset({"relu", "relu6", "hardtanh", "clamp"})
# A line between two clips: in a convolution's weights and bias, the clips in the rounding behind it.
LINE = "hardsigmoid"
MOVES_VALUES = frozenset(
    {"flatten", "reshape", "view", "reshape_as", "permute", "transpose", "squeeze", "unsqueeze",
     "__getitem__", "chunk", "split", "unbind", "max_pool2d", "channel_shuffle", "pad"}
)  # fmt: skip
# Nothing in the deployed network; while training they scale values, which must not be cut to the range.
IDENTITIES = frozenset(
    {"dropout", "dropout2d", "feature_dropout", "alpha_dropout", "contiguous", "to", "float"}
)
_TWO_TENSORS = frozenset({"add", "mul", "matmul"})
# ``x * gate(x)``: both halves have integer kernels once the gate's output is quantized too.
GATES = {"silu": "sigmoid", "hardswish": "hardsigmoid"}


def gate_of(site: Site) -> Site:
    """Where the gate inside a SiLU or HardSwish at ``site`` is quantized."""
    return Site(site.module, f"{site.op}_gate", site.nth)


def bounds_of(call: Call) -> tuple[float, float] | None:
    """The interval that ``call`` clips to; None where it does not clip."""
    numbers = [float(a) for a in call.args if isinstance(a, (int, float)) and not isinstance(a, bool)]
    if call.op == "relu":
        return 0.0, math.inf
    if call.op == "relu6":
        return 0.0, 6.0
    if call.op in ("sigmoid", "hardsigmoid"):
        return 0.0, 1.0
    if call.op == "hardtanh":
        low, high = (*numbers, -1.0, 1.0)[:2] if len(numbers) >= 2 else (-1.0, 1.0)
        return float(call.kwargs.get("min_val", low)), float(call.kwargs.get("max_val", high))
    if call.op == "clamp":
        named = {**dict(zip(("min", "max"), call.args, strict=False)), **call.kwargs}
        least, most = named.get("min"), named.get("max")
        return (-math.inf if least is None else float(least)), (math.inf if most is None else float(most))
    return None


def runs_in_integers(call: Call, float_layers: Collection[str]) -> bool:
    """``call`` has an integer kernel and lies in none of the modules that stay float."""
    if call.op not in INTEGER_OPS or (call.op in _TWO_TENSORS and len(call.inputs) < 2):
        return False
    if any(within(call.site.module, block) for block in float_layers):
        return False
    if call.op not in WEIGHTED:
        return True
    # A weight that forward() computes has no integers to store.
    stored = f"{call.site.module}.weight" in call.parameters
    return stored


def within(module: str, block: str) -> bool:
    """``module`` is ``block`` or a part of it."""
    return module == block or module.startswith(block + ".")


def fused_reader(graph: CallGraph, call: Call) -> Call | None:
    """What the integer kernel of ``call`` does on the way: an activation, or a line (a hard sigmoid) or a factor for
    each channel (layer scale), which the file has in its weights."""
    reader = sole_reader(graph, call)
    if reader is None or call.op not in FUSES_ACTIVATION:
        return None
    if reader.op in FUSED_ACTIVATIONS or (reader.op == LINE and call.op == "conv2d"):
        return reader
    channels = {"conv2d": 1, "linear": -1}.get(call.op)
    return reader if channels is not None and reader.factors == call.shape[channels] else None


def sole_reader(graph: CallGraph, call: Call) -> Call | None:
    """The only one that reads what ``call`` made, behind what does nothing in the deployed network."""
    reader = graph.sole_consumer(call)
    while reader is not None and reader.op in IDENTITIES:
        reader = graph.sole_consumer(reader)
    return reader


def source_of(graph: CallGraph, value: int) -> int:
    """``value`` before what does nothing in the deployed network."""
    producer = graph.producer(value)
    if producer is not None and producer.op in IDENTITIES and producer.inputs:
        return source_of(graph, producer.inputs[0])
    return value
