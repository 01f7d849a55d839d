"""What stands around a call: the layers with weights that feed it or read it first, and the norms on the way."""

from __future__ import annotations

from collections.abc import Callable

from edgekd.models.calls import Call, CallGraph

_WEIGHING = {"linear", "conv2d"}


def layers_before(graph: CallGraph, ends: list[Call]) -> tuple[list[str], list[str]]:
    """The nearest weighing layers that feed ``ends``, and the norms on the way."""

    def makers(call: Call) -> list[Call]:
        return [maker for value in call.inputs if (maker := graph.producer(value)) is not None]

    return _nearest(ends, makers)


def layers_behind(graph: CallGraph, start: Call) -> tuple[list[str], list[str]]:
    """The next weighing layers behind ``start``, and the norms on the way."""
    return _nearest([start], lambda call: [each for value in call.outputs for each in graph.consumers(value)])


def _nearest(starts: list[Call], step: Callable[[Call], list[Call]]) -> tuple[list[str], list[str]]:
    """The weighing layers that ``step`` reaches first from ``starts``, and the norms on the way."""
    layers: dict[str, None] = {}
    norms: dict[str, None] = {}
    stack, seen = [each for start in starts for each in step(start)], set()
    while stack:
        call = stack.pop()
        if call.index in seen:
            continue
        seen.add(call.index)
        if call.op in _WEIGHING:
            layers[call.site.module] = None
            continue
        if call.op in ("batch_norm", "layer_norm"):
            norms[call.site.module] = None
        stack += step(call)
    return list(layers), list(norms)


def next_call(graph: CallGraph, call: Call, ops: set[str]) -> Call | None:
    """The first call of ``ops`` behind ``call``, along its only path."""
    stack = list(call.outputs)
    while stack:
        for reader in graph.consumers(stack.pop(0)):
            if reader.op in ops:
                return reader
            stack += reader.outputs
    return None
