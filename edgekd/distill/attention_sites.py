"""Where a network attends, found in its call graph and by no name: who makes queries, keys and values.

An attention is ``scaled_dot_product_attention``, or a softmax between two products of activations. The
operands are followed back through reshapes and scalings to the linear layers that made them; so what is
compared is what those layers answer, before any normalisation or rotation of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from edgekd.errors import RecipeError, fault
from edgekd.models.calls import Call, CallGraph, record_calls

_ELEMENTWISE = frozenset({
    "add", "mul", "div", "__truediv__", "__rtruediv__", "sub", "__sub__", "masked_fill", "masked_fill_", "dropout",
    "to", "type", "type_as", "float", "where", "clamp", "contiguous", "softmax", "nan_to_num",
})  # fmt: skip
_RESHAPING = frozenset({
    "view", "reshape", "transpose", "permute", "swapaxes", "contiguous", "unbind", "chunk", "split", "__getitem__",
    "squeeze", "unsqueeze", "flatten", "unflatten", "mul", "div", "__truediv__", "to", "type", "float", "expand", "T",
    "mT", "clone",
})  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A linear layer's output, or the ``part``-th of ``parts`` equal pieces of it."""

    module: str
    part: int = 0
    parts: int = 1

    def of(self, features: Tensor) -> Tensor:
        return features if self.parts == 1 else features.chunk(self.parts, dim=-1)[self.part]


@dataclass(frozen=True)
class Attention:
    """One attention: what its three operands are made of: query, key, value."""

    sources: tuple[Source, Source, Source]
    heads: int


@dataclass(frozen=True)
class AttentionPair:
    """The two attentions that are compared."""

    student: Attention
    teacher: Attention

    @property
    def modules(self) -> list[tuple[str, str]]:
        pairs = zip(self.student.sources, self.teacher.sources, strict=True)
        return [(ours.module, theirs.module) for ours, theirs in pairs]


def find_attentions(module: nn.Module, example: Tensor) -> list[Attention]:
    """Every attention whose operands come from linear layers, in the order of the forward pass."""
    graph = record_calls(module, example)
    linear = {name for name, child in module.named_modules() if isinstance(child, nn.Linear)}
    found = []
    for call in graph.calls:
        operands = _operands(graph, call)
        if operands is None:
            continue
        made = [_linear_before(graph, value, linear) for value in operands]
        query = graph.producer(operands[0])
        if None in made or query is None:
            continue
        names = [name for name in made if name is not None]
        sources = [
            Source(name, names[:role].count(name), names.count(name)) for role, name in enumerate(names)
        ]
        shape = query.shape
        heads = shape[1] if len(shape) == 4 else max(1, shape[0] // len(example))
        found.append(Attention((sources[0], sources[1], sources[2]), heads))
    return found


def match_attention(
    student: nn.Module,
    teacher: nn.Module,
    example: Tensor,
    layers: Literal["auto"] | Sequence[tuple[str, str]] = "auto",
    *,
    where: str = "layers",
) -> AttentionPair:
    """The last attention of both, or those in the one pair of modules that ``layers`` names.

    Raises:
        RecipeError: a network without attention, or none in the named module.
    """
    if layers != "auto" and len(layers) != 1:
        raise RecipeError(fault(where, "one pair of layers is compared", got=f"{len(layers)} pairs"))
    chosen = []
    for position, (side, module) in enumerate((("student", student), ("teacher", teacher))):
        found = find_attentions(module, example)
        name = None if layers == "auto" else layers[0][position]
        if name is not None:
            found = [each for each in found if f"{each.sources[0].module}.".startswith(f"{name}.")]
        if not found:
            spot = f"the {side}" + (f"'s {name}" if name else "")
            fix = "use hidden or kd, which every network has something for"
            raise RecipeError(
                fault(where, f"{spot} has no attention whose operands are linear layers", fix=fix)
            )
        chosen.append(found[-1])
    return AttentionPair(*chosen)


def _operands(graph: CallGraph, call: Call) -> tuple[int, int, int] | None:
    """Value numbers of query, key and value where ``call`` is an attention's core."""
    if call.op == "scaled_dot_product_attention":
        return (call.inputs[0], call.inputs[1], call.inputs[2]) if len(call.inputs) > 2 else None
    if call.op != "softmax":
        return None
    scores = _product_before(graph, call)
    mixed = _product_after(graph, call)
    if scores is None or mixed is None:
        return None
    return (scores.inputs[0], scores.inputs[1], mixed.inputs[1])


def _product_before(graph: CallGraph, softmax: Call) -> Call | None:
    """The product of two activations that the softmax is taken of, the earliest where several are added."""
    waiting, seen, products = list(softmax.inputs), set(), []
    while waiting:
        call = graph.producer(waiting.pop())
        if call is None or call.index in seen:
            continue
        seen.add(call.index)
        if call.op == "matmul" and len(call.inputs) == 2:
            products.append(call)
        elif call.op in _ELEMENTWISE | _RESHAPING:
            waiting += call.inputs
    return min(products, key=lambda call: call.index, default=None)


def _product_after(graph: CallGraph, softmax: Call) -> Call | None:
    value = softmax.outputs[0]
    for _ in range(8):  # dropout, casts, reshapes
        readers = graph.consumers(value)
        product = next((call for call in readers if call.op == "matmul" and len(call.inputs) == 2), None)
        if product is not None:
            return product if product.inputs[0] == value else None
        onward = [call for call in readers if call.op in _ELEMENTWISE | _RESHAPING]
        if not onward:
            return None
        value = onward[0].outputs[0]
    return None


def _linear_before(graph: CallGraph, value: int, linear: set[str]) -> str | None:
    """The linear layer whose output, reshaped and scaled, is ``value``."""
    call = graph.producer(value)
    while call is not None:
        if call.op == "linear":
            return call.site.module if call.site.module in linear else None
        if call.op not in _RESHAPING:
            return None
        call = graph.producer(call.inputs[0])
    return None
