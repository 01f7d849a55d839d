"""Look at what layers read while a network runs: what they are called with, and what they convolve or multiply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Hook = Callable[[nn.Module, tuple[Tensor, ...]], None]


@contextmanager
def listening(hooks: Iterable[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Call each hook with its layer and the layer's arguments, as long as the block runs."""
    handles = [layer.register_forward_pre_hook(hook) for layer, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def see_inputs(
    model: nn.Module, batches: Sequence[Tensor], see: Mapping[str, Callable[[Tensor], Any]]
) -> None:
    """Run ``model`` over ``batches`` and give every layer's input to its function in ``see``."""

    def hook(name: str) -> Hook:
        return lambda layer, args: see[name](args[0].detach())

    with listening((model.get_submodule(name), hook(name)) for name in see):
        for batch in batches:
            model(batch)


@torch.no_grad()
def see_calls(model: nn.Module, batches: Sequence[Tensor], see: Mapping[str, Callable[..., Any]]) -> None:
    """Run ``model`` over ``batches`` and give the arguments of every layer's convolution or product to its function.

    Not the same as what the layer is called with: one that pads in its own ``forward`` (TensorFlow's SAME, circular
    padding) convolves something larger.
    """
    calls = _Calls()
    with ExitStack() as stack:
        for name, function in see.items():
            layer = model.get_submodule(name)
            stack.callback(layer.register_forward_pre_hook(partial(calls.enter, function)).remove)
            stack.callback(layer.register_forward_hook(calls.leave).remove)
        stack.enter_context(calls)
        for batch in batches:
            model(batch)


class _Calls(TorchFunctionMode):
    """Listens from a layer's call to its return."""

    def __init__(self) -> None:
        super().__init__()
        self.see: Callable[..., Any] | None = None

    def enter(self, see: Callable[..., Any], layer: nn.Module, args: Any) -> None:
        self.see = see

    def leave(self, layer: nn.Module, args: Any, output: Any) -> None:
        self.see = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.see is not None and func in (F.conv2d, F.linear):
            self.see(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
