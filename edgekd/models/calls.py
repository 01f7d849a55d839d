"""The call graph: which tensor operations a module really performs, in which order, on whose outputs.

One forward pass under a ``TorchFunctionMode`` sees every torch function that Python calls, so it works on
any module whose Python control flow does not depend on the data: no symbolic tracing, no module swap, no
list of architectures. Batch-norm folding, fake-quant placement and layer matching read this graph; the
fake-quant simulation runs under the same kind of mode, so that what was planned is what runs.

A *site* names a call: ``(module path, operation, n-th such call of that module in this pass)``. It stays
valid when other modules (dropout, stochastic depth) add or skip operations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.parametrize import ParametrizationList
from torch.overrides import TorchFunctionMode

from edgekd.models.evaluating import evaluating

# torch spells one operation in many ways; these are the spellings that other rooms ask about.
_CANONICAL = {
    "__add__": "add", "__radd__": "add", "__iadd__": "add", "add_": "add",
    "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul", "mul_": "mul", "multiply": "mul",
    "__matmul__": "matmul", "bmm": "matmul",
    "concat": "cat", "concatenate": "cat",
    "relu_": "relu", "hardtanh_": "hardtanh", "clamp_": "clamp", "clip": "clamp", "clip_": "clamp",
    "silu_": "silu", "hardswish_": "hardswish", "hardsigmoid_": "hardsigmoid", "sigmoid_": "sigmoid",
    "boolean_dispatch": "max_pool2d",
}  # fmt: skip


_HAVE_WEIGHTS = frozenset({"linear", "conv1d", "conv2d", "conv3d"})
_SAME_INTEGERS = frozenset({"view", "reshape", "flatten", "contiguous", "to", "long", "int"})

# Of their second tensor these read the shape or type, not the values.
_READ_A_SHAPE = frozenset({"reshape_as", "view_as", "expand_as", "type_as"})


class Site(NamedTuple):
    """Where a call stands; usable as a key over several forward passes."""

    module: str
    op: str
    nth: int

    def __str__(self) -> str:
        return f"{self.module or '<root>'}:{self.op}" + (f"#{self.nth}" if self.nth else "")


@dataclass(frozen=True)
class Call:
    """One recorded operation. ``inputs`` and ``output`` are value numbers; -1 - k is the model's k-th input.

    ``args`` holds non-tensor positional and keyword arguments that placement rules read (pool sizes, bounds).
    ``parameters`` names the model's parameters that the call reads as they are (``conv1.weight``); a
    parametrized weight counts under its layer's name. A weight that forward() computes (weight
    standardisation) is missing, so nobody folds or quantizes the tensor behind it by mistake. ``factors`` is
    the number of constant factors of a product of which one side does not depend on the model's input.
    """

    index: int
    site: Site
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shape: tuple[int, ...]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    factors: int | None = None

    @property
    def op(self) -> str:
        return self.site.op


@dataclass
class CallGraph:
    """All calls of one forward pass, in order.

    Attributes:
        calls: the operations.
        result: value numbers that the model returns.
    """

    calls: list[Call]
    result: tuple[int, ...]

    def __post_init__(self) -> None:
        self._producer = {value: call for call in self.calls for value in call.outputs}
        self._consumers: dict[int, list[Call]] = defaultdict(list)
        for call in self.calls:
            for value in call.inputs:
                self._consumers[value].append(call)

    def producer(self, value: int) -> Call | None:
        """The call that made ``value``; None for a model input."""
        return self._producer.get(value)

    def consumers(self, value: int) -> list[Call]:
        return self._consumers.get(value, [])

    def sole_consumer(self, call: Call) -> Call | None:
        """The only reader of ``call``'s only output, unless the model also returns it."""
        if len(call.outputs) != 1 or call.outputs[0] in self.result:
            return None
        readers = self.consumers(call.outputs[0])
        return readers[0] if len(readers) == 1 else None


def _by_place(
    op: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """``F.linear(input=x, weight=w)`` as ``F.linear(x, w)``, which readers of a call go by."""
    for place, name in enumerate(("input", "weight") if op in _HAVE_WEIGHTS else ("input",)):
        if len(args) == place and name in kwargs:
            args, kwargs = (*args, kwargs[name]), {key: kwargs[key] for key in kwargs if key != name}
    return args, kwargs


class CallMode(TorchFunctionMode):
    """A function mode that knows the site of each call. Subclasses override :meth:`on_call`."""

    def __init__(self) -> None:
        super().__init__()
        self._path: list[str] = [""]
        self._counts: dict[tuple[str, str], int] = defaultdict(int)
        self._silent = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._silent:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__", "size", "dim", "stride", "is_contiguous", "__len__"):
            return func(*args, **kwargs)
        # Arithmetic on sizes is Python's, except while torch traces: then it is on integer tensors.
        if not any(tensor.is_floating_point() for tensor in tensors_in((args, kwargs))):
            output = func(*args, **kwargs)
            if name in _SAME_INTEGERS:
                self.on_same_integers(args[0], output)
            return output
        op = _CANONICAL.get(name, name)
        args, kwargs = _by_place(op, args, kwargs)
        key = (self._path[-1], op)
        nth = self._counts[key]
        self._counts[key] += 1
        return self.on_call(Site(key[0], op, nth), func, args, kwargs)

    def on_call(self, site: Site, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return func(*args, **kwargs)

    def on_same_integers(self, given: Any, output: Any) -> None:
        """Token ids in another shape or type."""

    def on_parametrized(self, path: str, value: Any) -> None:
        """An effective weight was computed; ``path`` is its name, such as ``conv1.weight``."""

    @contextmanager
    def following(self, module: nn.Module) -> Iterator[None]:
        """Activate the mode and keep track of which submodule is running.

        Two hooks for the whole process, removed at the end, serve every submodule: installing hooks on each
        of them cost half a millisecond per forward pass of a small network.
        """
        paths = _paths(module)

        def enter(child: nn.Module, args: Any) -> None:
            path = paths.get(child)
            if path is None:
                return
            if isinstance(child, ParametrizationList):
                self._silent += 1  # computing an effective weight is not an operation of the network
            else:
                self._path.append(path)

        def leave(child: nn.Module, args: Any, output: Any) -> None:
            path = paths.get(child)
            if path is None:
                return
            if isinstance(child, ParametrizationList):
                self._silent -= 1
                self.on_parametrized(path, output)
            elif len(self._path) > 1:
                self._path.pop()

        handles = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ]
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()


def _paths(module: nn.Module) -> dict[nn.Module, str]:
    """Every submodule's name; that of a parametrized weight is the weight's. Parametrizations have none."""
    paths = {}
    for path, child in module.named_modules():
        layer, marked, rest = path.rpartition("parametrizations.")
        if not marked:
            paths[child] = path
        elif isinstance(child, ParametrizationList):
            paths[child] = layer + rest
    return paths


class _Recorder(CallMode):
    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._parameters = {id(parameter): name for name, parameter in module.named_parameters()}
        self._next = 0
        self._values = {id(tensor): -1 - k for k, tensor in enumerate(inputs)}
        self._alive: list[Any] = list(inputs)  # ids stay unique while the objects live

    def value(self, tensor: Tensor) -> int | None:
        return self._values.get(id(tensor))

    def on_same_integers(self, given: Any, output: Any) -> None:
        number = self._values.get(id(given))
        if number is not None:
            self._values[id(output)] = number
            self._alive.append(output)

    def on_parametrized(self, path: str, value: Any) -> None:
        self._parameters[id(value)] = path
        self._alive.append(value)

    def on_call(self, site: Site, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = list(tensors_in((args, kwargs)))
        if site.op in _READ_A_SHAPE:
            given = given[:1]
        read = tuple(number for tensor in given if (number := self._values.get(id(tensor))) is not None)
        parameters = tuple(name for tensor in given if (name := self._parameters.get(id(tensor))))
        output = func(*args, **kwargs)
        made = list(tensors_in(output))
        if read and made:
            numbers = []
            for tensor in made:
                self._values[id(tensor)] = self._next
                numbers.append(self._next)
                self._next += 1
            self._alive.append(output)
            self.calls.append(
                Call(
                    len(self.calls), site, read, tuple(numbers), tuple(made[0].shape),
                    tuple(a for a in args if not isinstance(a, Tensor)),
                    {k: v for k, v in kwargs.items() if not isinstance(v, Tensor)},
                    parameters,
                    _factors(site.op, given, read),
                )
            )  # fmt: skip
        return output


def _factors(op: str, given: list[Tensor], read: tuple[int, ...]) -> int | None:
    """Where one axis at most is longer than 1: those of layer scale, not those of a mask."""
    if op != "mul" or len(read) != 1 or len(given) != 2:
        return None
    shape = min(given, key=Tensor.numel).shape
    return shape.numel() if max(shape, default=1) == shape.numel() else None


def record_calls(module: nn.Module, example: Tensor) -> CallGraph:
    """Run ``module`` once on ``example`` (eval mode, no gradient) and return what it did.

    Args:
        module: takes one tensor.
        example: ``(batch, channels, height, width)`` for an image model.
    """
    recorder = _Recorder(module, (example,))
    with evaluating(module), torch.no_grad(), recorder.following(module):
        output = module(example)
    result = tuple(n for t in tensors_in(output) if (n := recorder.value(t)) is not None)
    return CallGraph(recorder.calls, result)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
