"""A checkpoint decides its architecture: its head tells the classes, its first convolution the channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from edgekd.errors import ModelError, fault
from edgekd.models.checkpoint import align_names, compare, read_checkpoint
from edgekd.models.loaded import Request

Build = Callable[[int, int], nn.Module]
"""``(classes, channels)`` to a fresh module; 0 means the architecture's own."""


def load_checkpoint(
    build: Build, path: Path, request: Request, *, channels: int, heads: tuple[str, ...] = (), source: str
) -> tuple[nn.Module, int, list[str]]:
    """Build the architecture as the checkpoint wants it, and fill it.

    Args:
        build: makes the module; called again when the checkpoint has other classes or channels.
        channels: the recipe's, or 0.
        heads: module names of the classifier; unset: the module of the last matrix.
        source: the architecture as the user wrote it, for messages.

    Returns:
        The module, its channels (0: the architecture's own), and notes (a head that was made anew).

    Raises:
        ModelError: the file cannot be read, or is for another architecture.
    """
    state = read_checkpoint(path, request.where)
    module = build(request.classes, channels)
    own = module.state_dict()
    state = align_names(state, own)
    heads = heads or last_matrix(own)

    found_classes = _head_classes(state, own, heads)
    found_channels = _channels(state, own, channels)
    if (found_classes or request.classes) != request.classes or found_channels != channels:
        module = build(found_classes or request.classes, found_channels)
        own = module.state_dict()

    notes: list[str] = []
    optional: tuple[str, ...] = ()
    if not found_classes and heads:
        optional = heads
        notes.append(f"{path.name} has no head: {heads[0]} is freshly initialised")
    elif request.role == "student" and request.classes not in (0, found_classes):
        fresh = build(request.classes, found_channels)
        if _head_classes(fresh.state_dict(), own, heads) == request.classes:
            module, own, optional = fresh, fresh.state_dict(), heads
            state = {name: tensor for name, tensor in state.items() if not _below(name, heads)}
            notes.append(
                f"the head of {path.name} has {found_classes} classes; made anew for {request.classes}"
            )
    fill(module, state, path=path, where=request.where, source=source, optional=optional)
    return module, found_channels, notes


def fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    path: Path,
    where: str,
    source: str,
    optional: tuple[str, ...] = (),
) -> None:
    """Load ``state`` into ``module``, every tensor of it.

    Raises:
        ModelError: names the first missing, unexpected and reshaped tensor, with the counts.
    """
    problem = compare(state, module.state_dict(), optional)
    if problem:
        raise ModelError(fault(where, f"{path} does not fit {source}: {problem}"))
    module.load_state_dict(dict(state), strict=False)  # compare() was the strict check


def last_matrix(own: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The module of the last 2-D weight, which is a classifier's head."""
    names = [name for name, tensor in own.items() if name.endswith(".weight") and tensor.ndim == 2]
    return (names[-1].removesuffix(".weight"),) if names else ()


def first_conv(own: Mapping[str, Tensor]) -> str | None:
    """Name of the first 4-D tensor: the weight of the convolution that reads the image."""
    return next((name for name, tensor in own.items() if tensor.ndim == 4), None)


def image_channels(module: nn.Module) -> int:
    """1 or 3 where the first convolution tells so, else 0."""
    conv = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    return conv.in_channels if conv is not None and conv.in_channels in (1, 3) else 0


def _head_classes(state: Mapping[str, Tensor], own: Mapping[str, Tensor], heads: tuple[str, ...]) -> int:
    """Classes that the head in ``state`` answers, or 0 where there is none."""
    for head in heads:
        weight = state.get(f"{head}.weight")
        mine = own.get(f"{head}.weight")
        if weight is None or mine is None or weight.ndim != mine.ndim:
            continue
        return int(weight.shape[0])
    return 0


def _channels(state: Mapping[str, Tensor], own: Mapping[str, Tensor], asked: int) -> int:
    """1 or 3 where the file's first convolution differs from the model's in just that, else ``asked``."""
    name = first_conv(own)
    if name is None or name not in state or state[name].ndim != 4:
        return asked
    theirs, mine = state[name].shape, own[name].shape
    if theirs[1] == mine[1] or (theirs[0], *theirs[2:]) != (mine[0], *mine[2:]):
        return asked
    built = asked or (mine[1] if mine[1] in (1, 3) else 3)
    # A space-to-depth stem reads a multiple of the image's channels.
    found, rest = divmod(theirs[1] * built, mine[1])
    return int(found) if not rest and found in (1, 3) else asked


def _below(name: str, modules: tuple[str, ...]) -> bool:
    return name.startswith(tuple(f"{module}." for module in modules))
