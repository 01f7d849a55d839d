"""How many channels each tensor gets, and where the network's own ones lie among them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx

from edgekd.export.channels import ChannelClasses, Class

Layout = tuple[int, ...]  # for each channel of the file the network's channel, -1 for padding
# By the name of what a convolution writes: multiples of channels that it wants to read and to write.
Wanted = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Multiples:
    """What the fast kernels want.

    Attributes:
        depthwise: a multiple of this many channels.
        dense: a multiple of this many input channels.
        products_per_group: see :func:`edgekd.export.grouped.densify_groups`; measured on x86 alone.
        fold_pixels: see :func:`edgekd.export.pixels.fold_pixels`; measured on x86 alone.
    """

    depthwise: int
    dense: int
    products_per_group: int
    fold_pixels: bool = False


MULTIPLES = {
    "x86": Multiples(depthwise=16, dense=4, products_per_group=14_000, fold_pixels=True),
    # The dense kernel is taken from 64 input channels on, and those are multiples of 8 everywhere.
    "arm": Multiples(depthwise=8, dense=1, products_per_group=0),
}


class _Again(Exception):
    """A class turned out to be fixed."""


def find_layouts(
    classes: ChannelClasses, multiples: Multiples, wanted: Wanted = MappingProxyType({})
) -> dict[str, Layout]:
    """By class the layout of its channels: padded where everything that touches them can be rearranged."""
    while True:
        found: dict[str, Layout] = {}
        try:
            for root in classes.roots():
                _layout(classes, root, multiples, wanted, found, ())
        except _Again:
            continue
        return found


def _layout(
    classes: ChannelClasses,
    root: str,
    multiples: Multiples,
    wanted: Wanted,
    found: dict[str, Layout],
    path: tuple[str, ...],
) -> Layout:
    if root in found:
        return found[root]
    own = classes.of(root)
    assert own is not None
    if not own.joined:
        found[root] = _padded(own, multiples, wanted)
        return found[root]
    sources = [[classes.root(name) for name in _sources(node)] for node in own.joined]
    if root in path:
        _fix(classes, sources)
    layouts = []
    for node, roots in zip(own.joined, sources, strict=True):
        parts = [_layout(classes, r, multiples, wanted, found, (*path, root)) for r in roots if r is not None]
        layouts.append(_joined(classes, node, parts))
    if any(layout is None or layout != layouts[0] for layout in layouts) or (
        own.fixed and layouts[0] != tuple(range(own.channels))
    ):
        _fix(classes, sources)
    found[root] = layouts[0]  # type: ignore[assignment]
    return found[root]


def _fix(classes: ChannelClasses, sources: list[list[str | None]]) -> None:
    free = [c for roots in sources for r in roots if r is not None and (c := classes.of(r)) and not c.fixed]
    if not free:
        raise AssertionError("layouts of fixed channels differ")
    for entry in free:
        entry.fixed = True
    raise _Again


def _sources(node: onnx.NodeProto) -> list[str]:
    return list(node.input) if node.op_type == "Concat" else [node.input[0]]


def _padded(own: Class, multiples: Multiples, wanted: Wanted) -> Layout:
    identity = tuple(range(own.channels))
    if own.fixed or not own.writers or own.area == 1:
        return identity
    multiple = multiples.depthwise if own.depthwise else multiples.dense
    if not own.depthwise and not own.readers:
        return identity
    grouped = [wanted[node.output[0]][0] for node in own.readers if node.output[0] in wanted]
    grouped += [wanted[node.output[0]][1] for node in own.writers if node.output[0] in wanted]
    joint = math.lcm(multiple, *grouped)
    if -own.channels % joint <= own.channels // 4:
        multiple = joint
    missing = -own.channels % multiple
    return identity if missing > own.channels else identity + (-1,) * missing


def _joined(classes: ChannelClasses, node: onnx.NodeProto, parts: list[Layout]) -> Layout | None:
    """The layout that a Concat or Slice makes of its inputs'; None where groups of four channels (a 2:4
    pattern) would not stay together."""
    plain = all(-1 not in part for part in parts)
    if node.op_type == "Slice":
        kept = classes.kept_channels(node)
        assert kept is not None
        start, stop = moved(kept, parts[0])
        if not plain and kept[0] % 4:
            return None
        return tuple(c - kept[0] if c >= 0 else -1 for c in parts[0][start:stop])
    joined: list[int] = []
    offset = 0
    for part in parts:
        real = sum(c >= 0 for c in part)
        if not plain and real % 4:
            return None
        joined += [c + offset if c >= 0 else -1 for c in part]
        offset += real
    return tuple(joined)


def moved(kept: tuple[int, int], layout: Layout) -> tuple[int, int]:
    """Where the channels ``kept`` lie in ``layout``, padding behind the last one included."""
    start = layout.index(kept[0])
    return start, layout.index(kept[1]) if kept[1] in layout else len(layout)
