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
from torch.utils.hooks import RemovableHandle

Hook = Callable[[nn.Module, tuple[Tensor, ...]], None]


def another_input(example: Tensor) -> Tensor:
    """One sample that tells functions apart: seeded noise of an image's shape, token ids from the end to the start.

    An image of a single colour would not tell one kernel from another.
    """
    if not example.is_floating_point():
        return example[:1].flip(1)
    return torch.randn(example[:1].shape, generator=torch.Generator().manual_seed(0)).to(example)


@contextmanager
def removing(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Hooks for as long as the block runs."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def listening(hooks: Iterable[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Call each hook with its layer and the layer's arguments, as long as the block runs."""
    with removing([layer.register_forward_pre_hook(hook) for layer, hook in hooks]):
        yield


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
