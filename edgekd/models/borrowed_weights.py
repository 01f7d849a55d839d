"""Linear layers that nobody calls, because the module above multiplies with their weight itself: called instead.

BEiT, EVA and Swin V2 put a bias together out of parts and hand it to ``F.linear`` with ``self.qkv.weight``. Masks,
integers and their scales belong to a layer and its call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from edgekd.models.layer_calls import another_input, listening, removing

_TOLERANCE = 1e-5  # of the largest answer


@torch.no_grad()
def call_borrowed_layers(module: nn.Module, example: Tensor) -> list[str]:
    """Let every such layer be called, in place; the function that ``module`` computes in eval mode stays the same.

    Left alone: a layer whose weight is used twice, or with a bias that depends on the input.

    Args:
        module: in eval mode.
        example: one batch that it takes; images keep its size.

    Returns:
        The names of the layers that are called now.
    """
    layers = {
        name: layer for name, layer in module.named_modules()
        if type(layer) is nn.Linear and name and not parametrize.is_parametrized(layer)
    }  # fmt: skip
    ran: set[nn.Module] = set()
    with listening((layer, lambda layer, _: ran.add(layer)) for layer in layers.values()):
        expected = module(example)
    idle = {name: layer for name, layer in layers.items() if layer not in ran}
    if not idle or not isinstance(expected, Tensor):
        return []
    uses = _uses(module, idle, example)
    others = _uses(module, idle, another_input(example))
    called = []
    for name, found in uses.items():
        again = others[name]
        if (
            len(found) != 1
            or len(again) != 1
            or found[0][0] != again[0][0]
            or not _equal(found[0][1], again[0][1])
        ):
            continue
        if _redirect(module, name, *found[0], example, expected):
            called.append(name)
    _retire(module, called, example)
    return called


def _uses(
    module: nn.Module, layers: dict[str, nn.Linear], example: Tensor
) -> dict[str, list[tuple[int, Tensor | None]]]:
    """For each layer the uses of its weight: the how manieth product of the module above it, and the bias."""
    modes = {parent: _Products() for parent in {name.rpartition(".")[0] for name in layers}}
    handles = []
    for parent, mode in modes.items():
        holder = module.get_submodule(parent)
        handles.append(holder.register_forward_pre_hook(lambda *_, mode=mode: mode.__enter__() and None))
        handles.append(
            holder.register_forward_hook(
                lambda *_, mode=mode: mode.__exit__(None, None, None), always_call=True
            )
        )
    with removing(handles):
        module(example)
    return {
        name: [
            (k, bias)
            for k, (weight, bias) in enumerate(modes[name.rpartition(".")[0]].seen)
            if weight is layer.weight
        ]
        for name, layer in layers.items()
    }


def _redirect(
    module: nn.Module, name: str, place: int, bias: Tensor | None, example: Tensor, expected: Tensor
) -> bool:
    """Give the layer its bias and have it called; undone where the answer changes."""
    parent, _, last = name.rpartition(".")
    holder, layer = module.get_submodule(parent), module.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    before = layer.bias, type(holder), holder.__dict__.get("_edgekd_called")
    layer.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
    holder.__dict__["_edgekd_called"] = {**(before[2] or {}), place: last}
    if before[2] is None:
        holder.__class__ = type(before[1].__name__, (_CallsLayers, before[1]), {})
    try:
        answer = module(example)
        if (answer - expected).abs().max() <= _TOLERANCE * expected.abs().max():
            return True
    except (RuntimeError, ValueError, TypeError):
        pass
    layer.register_parameter("bias", before[0])
    holder.__class__, holder.__dict__["_edgekd_called"] = before[1:]
    return False


@torch.enable_grad()
def _retire(module: nn.Module, names: list[str], example: Tensor) -> None:
    """The parts that a bias was put together from take no part any more: none waits for its gradient."""
    holders = {name.rpartition(".")[0] for name in names}
    parts = [
        part for path in holders for part in module.get_submodule(path).parameters(recurse=False) if part.requires_grad
    ]  # fmt: skip
    if not parts:
        return
    gradients = torch.autograd.grad(module(example).sum(), parts, allow_unused=True)
    for part, gradient in zip(parts, gradients, strict=True):
        part.requires_grad_(gradient is not None)


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


class _CallsLayers(nn.Module):
    """Mixed into the class of a module above: a product in its ``forward`` is a call of its layer."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with _Products({k: getattr(self, name) for k, name in self.__dict__["_edgekd_called"].items()}):
            return super().forward(*args, **kwargs)


class _Products(TorchFunctionMode):
    """Counts the products of linear layers while it is on, notes them, and hands some over to a layer."""

    def __init__(self, layers: dict[int, nn.Module] | None = None) -> None:
        super().__init__()
        self.layers = layers or {}
        self.seen: list[tuple[Tensor, Tensor | None]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.linear:
            return func(*args, **kwargs)
        x, weight, bias = _linear(*args, **kwargs)
        layer = self.layers.get(len(self.seen))
        self.seen.append((weight, bias))
        return func(x, weight, bias) if layer is None else layer(x)


def _linear(
    input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    return input, weight, bias
