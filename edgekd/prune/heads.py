"""Attention heads as units: read off the call graph, with guesses about their layout that are tried out.

An attention layer is a module with a head count in which a softmax (or a fused attention) runs. The layers
before it write heads, the next layers behind it read them, and a parameter with one entry a head goes along.
In which order a fused projection holds queries, keys and values cannot be seen, so every likely layout is
offered; :mod:`edgekd.prune.proof` takes the first that leaves the function alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from torch import Tensor, nn

from edgekd.models.calls import Call, CallGraph, record_calls
from edgekd.prune.around import layers_before, layers_behind, next_call
from edgekd.prune.units import Follower, Slice, UnitGroup

_SOFTMAX = {"softmax"}
_FUSED = {"scaled_dot_product_attention"}
_MATMUL = {"matmul", "einsum"}


def propose_heads(model: nn.Module, example: Tensor) -> list[list[UnitGroup]]:
    """For each attention layer its possible sets of heads, the likeliest first.

    Args:
        model: in evaluation mode.
        example: one input batch.
    """
    graph = record_calls(model, example)
    parts = dict(model.named_modules())
    found: dict[str, list[UnitGroup]] = {}
    for call in graph.calls:
        if call.op not in _SOFTMAX | _FUSED:
            continue
        path = _owner(parts, call.site.module)
        if path is None or path in found:
            continue
        options = _options(model, parts, graph, call, path)
        if options:
            found[path] = options
    return list(found.values())


def _owner(parts: dict[str, nn.Module], path: str) -> str | None:
    """The nearest module around ``path`` that counts heads."""
    while path:
        if _head_counts(parts[path]):
            return path
        path = path.rpartition(".")[0]
    return None


def _head_counts(part: nn.Module) -> list[str]:
    return [
        key for key, value in vars(part).items()
        if "heads" in key and isinstance(value, int) and not isinstance(value, bool) and value > 1
    ]  # fmt: skip


def _options(
    model: nn.Module, parts: dict[str, nn.Module], graph: CallGraph, call: Call, path: str
) -> list[UnitGroup]:
    owner = parts[path]
    keys = _head_counts(owner)
    heads = int(getattr(owner, keys[0]))
    product = call if call.op in _FUSED else next_call(graph, call, _MATMUL)
    if product is None:
        return []
    writers, norms = layers_before(graph, [call, product])
    readers, later = layers_behind(graph, product)
    norms += later
    sized = [(name, _outputs(parts[name])) for name in writers]
    if not readers or not sized or any(size % heads for _, size in sized):
        return []
    if any(_inputs(parts[name]) % heads for name in readers):
        return []
    width = _inputs(parts[readers[0]]) // heads
    options = []
    for blocks in sorted(
        itertools.product((3, 2, 1), repeat=len(sized)), key=lambda b: _rank(b, sized, heads, width)
    ):
        if any(size % (heads * block) for (_, size), block in zip(sized, blocks, strict=True)):
            continue
        pieces: list[Slice] = []
        layout = {}
        for (name, size), block in zip(sized, blocks, strict=True):
            layout[size] = _layout(size, block, heads)
            pieces += _vectors(parts[name], name, layout[size], "write", "out")
        for name in norms:
            size = _outputs(parts[name])
            if size % heads == 0 and size in layout | {width * heads: None}:
                pieces += _vectors(
                    parts[name], name, layout.get(size) or _layout(size, 1, heads), "free", "norm"
                )
        for name in readers:
            size = _inputs(parts[name])
            pieces += _vectors(parts[name], name, _layout(size, 1, heads), "read", "in")
        known = {piece.tensor.rpartition(".")[0] for piece in pieces}
        pieces += _tables(owner, path, heads, known)
        products = {width * heads, *(size // block for (_, size), block in zip(sized, blocks, strict=True))}
        counts: list[Follower] = [(path, key, None, 1) for key in keys if getattr(owner, key) == heads]
        totals: list[Follower] = [
            (path, key, None, -(value // heads)) for key, value in vars(owner).items()
            if isinstance(value, int) and not isinstance(value, bool) and value in products
        ]  # fmt: skip
        for more in [totals, []] if totals else [[]]:
            piece = Slice(f"{path}.", -1, tuple(range(heads)), tuple(range(heads)), "free", (*counts, *more))
            options.append(
                UnitGroup(writers[0], heads, (*pieces, piece), kind="heads", width=width,
                          layers=tuple(dict.fromkeys([*writers, *readers])))
            )  # fmt: skip
    return options[:12]


def _rank(blocks: tuple[int, ...], sized: list[tuple[str, int]], heads: int, width: int) -> int:
    """One layer writes three blocks, three layers write one each: how far a layout is from three in all."""
    return abs(sum(blocks) - 3) + sum(
        size // block < width * heads // 4 for (_, size), block in zip(sized, blocks, strict=True)
    )


def _layout(size: int, blocks: int, heads: int) -> tuple[int, ...]:
    """The head of every position: ``blocks`` times all heads one after the other."""
    each = size // blocks // heads
    return tuple(place // each % heads for place in range(size))


def _vectors(part: nn.Module, name: str, units: tuple[int, ...], role: str, side: str) -> Iterator[Slice]:
    places = tuple(range(len(units)))
    conv = isinstance(part, nn.Conv2d)
    if side == "in":
        yield Slice(
            f"{name}.weight",
            1,
            places,
            units,
            "read",
            ((name, "in_channels" if conv else "in_features", None, 1),),
        )
        return
    first: tuple[Follower, ...] = ()
    if side == "out":
        first = ((name, "out_channels" if conv else "out_features", None, 1),)
    elif hasattr(part, "num_features"):
        first = ((name, "num_features", None, 1),)
    elif hasattr(part, "normalized_shape"):
        first = ((name, "normalized_shape", 0, 1),)
    for key in ("weight", "bias", "running_mean", "running_var"):
        if isinstance(getattr(part, key, None), Tensor):
            normed = side == "norm" and hasattr(part, "normalized_shape")
            yield Slice(
                f"{name}.{key}",
                0,
                places,
                units,
                "norm" if normed else "write" if side == "out" else "free",
                first,
            )
            first = ()


def _tables(owner: nn.Module, path: str, heads: int, known: set[str]) -> Iterator[Slice]:
    """Parameters with one entry a head: position tables, temperatures."""
    for name, parameter in owner.named_parameters(prefix=path):
        dims = [dim for dim, size in enumerate(parameter.shape) if size == heads]
        if name.rpartition(".")[0] not in known and len(dims) == 1:
            yield Slice(name, dims[0], tuple(range(heads)), tuple(range(heads)), "free")


def _outputs(part: nn.Module) -> int:
    return _shape(part)[0]


def _shape(part: nn.Module) -> tuple[int, ...]:
    weight = part.weight
    assert isinstance(weight, Tensor)
    return tuple(weight.shape)


def _inputs(part: nn.Module) -> int:
    groups = getattr(part, "groups", 1)
    assert isinstance(groups, int)
    return _shape(part)[1] * groups
