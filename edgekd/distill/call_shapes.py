"""Which module of a network ends a stage, found from one forward pass and no architecture's name."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from edgekd.models.evaluating import evaluating

Shape = tuple[int, ...]


def inner_modules(module: nn.Module) -> dict[str, nn.Module]:
    """Named modules without the root and without the insides of parametrizations (masks, fake-quant)."""
    return {
        name: each
        for name, each in module.named_modules()
        if name and "parametrizations" not in name.split(".")
    }


def first_tensor(output: object) -> Tensor | None:
    """The tensor that a module returned; the first one of a tuple or list."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def record_shapes(module: nn.Module, example: Tensor) -> dict[str, Shape]:
    """The output shape of every called module, in the order in which their last calls ended.

    Args:
        module: any network that takes ``example``.
        example: ``(batch, channels, height, width)``.
    """
    shapes: dict[str, Shape] = {}

    def watch(name: str, target: nn.Module) -> RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            tensor = first_tensor(output)
            shapes.pop(name, None)
            if tensor is not None:
                shapes[name] = tuple(tensor.shape)

        return target.register_forward_hook(hook)

    handles = [watch(name, each) for name, each in inner_modules(module).items()]
    try:
        with evaluating(module), torch.no_grad():
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def is_channels_last(shape: Shape, input_shape: Shape) -> bool:
    """Whether a 4-D shape is (batch, height, width, channels): the input's aspect ratio tells.

    Args:
        shape: of the features.
        input_shape: (batch, channels, height, width). Where both readings fit alike, channels come first.
            Nothing is a map where the input is none.
    """
    if len(shape) != 4 or len(input_shape) != 4 or 0 in shape:
        return False
    aspect = math.log(input_shape[2] / input_shape[3])
    first = abs(math.log(shape[2] / shape[3]) - aspect)
    last = abs(math.log(shape[1] / shape[2]) - aspect)
    return last < first - 1e-6


def resolution(shape: Shape, input_shape: Shape) -> Shape | None:
    """``(height, width)`` of a map or ``(tokens,)``; None for anything without at least two positions.

    A map keeps the input's batch size, and its aspect ratio to within a pixel; other 4-D tensors are
    attention heads, windows and the like.
    """
    size: Shape
    if shape[:1] != input_shape[:1]:
        return None
    if len(shape) == 4 and len(input_shape) != 4:
        return None
    if len(shape) == 4:
        size = shape[1:3] if is_channels_last(shape, input_shape) else shape[2:]
        if abs(size[0] - size[1] * input_shape[2] / input_shape[3]) > 1:
            return None
    elif len(shape) == 3:
        size = shape[1:2]
    else:
        return None
    return size if math.prod(size) > 1 else None


def stage_outputs(module: nn.Module, shapes: dict[str, Shape], input_shape: Shape) -> dict[str, Shape]:
    """The modules that end a stage, shallow first, with their resolution.

    Of all outputs at one resolution, those nearest the root in the module tree count, and of these the one
    that ends last: an expansion inside the next stage's first block is no stage output, nor is one inside the
    very first block at the input's resolution. Resolutions fall from stage to stage. A network of tokens with
    fewer than three resolutions (a class token makes a second one) has no such stages: there, every member
    of its longest repeated container counts.

    Args:
        module: the network that was recorded.
        shapes: of :func:`record_shapes`.
        input_shape: (batch, channels, height, width) of the network's input.
    """
    sizes = {name: resolution(shape, input_shape) for name, shape in shapes.items()}
    found = {name: size for name, size in sizes.items() if size is not None}
    if not found:
        return {}
    # Maps or tokens? Inside, each may take the other's form; the last of the outermost modules tells.
    outermost = min(name.count(".") for name in found)
    dimensions = [len(size) for name, size in found.items() if name.count(".") == outermost][-1]
    found = {name: size for name, size in found.items() if len(size) == dimensions}
    if dimensions == 1 and len(set(found.values())) < 3:
        blocks = _longest_container(module, list(found))
        if blocks:
            return {name: found[name] for name in blocks}
    best: dict[Shape, str] = {}
    for name, size in found.items():
        if size not in best or name.count(".") <= best[size].count("."):
            best[size] = name
    chosen = set(best.values())
    stages: dict[str, Shape] = {}
    smallest = math.inf
    for name, size in found.items():
        if size == input_shape[2:] and _is_inside_a_block(module, name, chosen):
            continue
        if name in chosen and math.prod(size) < smallest:
            stages[name] = size
            smallest = math.prod(size)
    return stages


def before_the_blocks(module: nn.Module, shapes: dict[str, Shape], input_shape: Shape) -> str | None:
    """The module whose output enters the first stage or block; None where there is none with positions."""
    stages = stage_outputs(module, shapes, input_shape)
    first = next(iter(stages), None)
    found = None
    for name, shape in shapes.items():
        if first is None or name == first or name.startswith(f"{first}."):
            break
        if resolution(shape, input_shape) is not None:
            found = name
    return found


def _is_inside_a_block(module: nn.Module, name: str, stages: set[str]) -> bool:
    """Whether a stage holds ``name`` by way of anything but sequences and lists."""
    parts = name.split(".")
    parents = [".".join(parts[:length]) for length in range(1, len(parts))]
    within = next((i for i, parent in enumerate(parents) if parent in stages), None)
    return within is not None and not all(
        isinstance(module.get_submodule(parent), (nn.ModuleList, nn.Sequential))
        for parent in parents[within:]
    )


def _longest_container(module: nn.Module, names: list[str]) -> list[str]:
    members: dict[str, list[str]] = defaultdict(list)
    for name in names:
        parent = name.rpartition(".")[0]
        if isinstance(module.get_submodule(parent), (nn.ModuleList, nn.Sequential)):
            members[parent].append(name)
    repeated = [group for group in members.values() if len(group) > 1] or [
        group  # a network of one block still keeps it in a list
        for parent, group in members.items()
        if isinstance(module.get_submodule(parent), nn.ModuleList)
    ]
    return max(repeated, key=lambda group: (len(group), -group[0].count(".")), default=[])
