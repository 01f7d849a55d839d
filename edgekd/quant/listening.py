"""Look at what layers read while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

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
