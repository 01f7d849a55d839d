"""Capturing the outputs of named modules, and choosing which modules to pair."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.utils.hooks import RemovableHandle

from edgekd.distill.call_shapes import (
    Shape,
    before_the_blocks,
    first_tensor,
    inner_modules,
    is_channels_last,
    record_shapes,
    resolution,
    stage_outputs,
)
from edgekd.errors import PreconditionError, RecipeError, fault, nearest

Pair = tuple[str, str]


class FeatureCapture:
    """Keeps what named modules return, while the ``with`` block is open::

        with FeatureCapture(student, names) as capture:
            logits = student(images)
            features = capture.take()

    A module that is called more than once counts with its last call; of a tuple, the first tensor counts.
    Channels-last maps come out as ``(batch, channels, height, width)``. Tensors are kept by reference, so an
    in-place operation on a module's output shows in the features, for student and teacher alike.

    Pass the network itself and not what ``DistributedDataParallel`` or ``accelerate`` made of it; calling
    that wrapper afterwards fills the capture. A deep copy made while the block is open (an EMA model) is not
    captured.
    """

    def __init__(self, module: nn.Module, names: Sequence[str], *, where: str = "layers") -> None:
        """
        Args:
            module: the network.
            names: of modules in it; may repeat.
            where: the recipe key, for messages.

        Raises:
            RecipeError: a name that no module has.
        """
        self.names = list(names)
        self._module = module
        self._where = where
        self._input_shape: Shape = (1, 1, 1, 1)
        self._features: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        known = inner_modules(module)
        for name in self.names:
            if name not in known:
                raise RecipeError(_unknown(where, "model", name, known, []))
        self._targets = {name: known[name] for name in self.names}

    def __enter__(self) -> FeatureCapture:
        root = self._module

        # Closures, and compared by identity: a deep copy of the network shares these hooks.
        def before(module: nn.Module, inputs: tuple[object, ...]) -> None:
            if module is root and inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4:
                self._input_shape = tuple(inputs[0].shape)

        self._handles.append(root.register_forward_pre_hook(before))
        for name, target in self._targets.items():
            self._handles.append(self._watch(name, target))
        return self

    def _watch(self, name: str, target: nn.Module) -> RemovableHandle:
        def after(module: nn.Module, _inputs: object, output: object) -> None:
            tensor = first_tensor(output)
            if module is not target or tensor is None:
                return
            if is_channels_last(tuple(tensor.shape), self._input_shape):
                tensor = tensor.permute(0, 3, 1, 2)
            self._features[name] = tensor

        return target.register_forward_hook(after)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._features.clear()

    def take(self) -> list[Tensor]:
        """The features of the last forward pass, in the order of ``names``; they are then forgotten.

        Raises:
            PreconditionError: a module was not called, or returned no tensor.
        """
        features, self._features = self._features, {}
        for name in self.names:
            if name not in features:
                raise PreconditionError(
                    fault(self._where, "the forward pass did not call it, or it returned no tensor", got=name)
                )
        return [features[name] for name in self.names]


def match_layers(
    student: nn.Module,
    teacher: nn.Module,
    example: Tensor,
    layers: Literal["auto"] | Sequence[Pair] = "auto",
    *,
    where: str = "layers",
) -> list[Pair]:
    """The (student, teacher) modules whose outputs are compared, deepest first.

    ``"auto"`` takes the modules that end a stage (see ``stage_outputs``). Where both have as many, and each
    of the teacher's has its name, type and resolution in the student, equal names are paired. Otherwise the
    deepest is paired with the deepest, the next with the next, as far as both go; between networks of tokens
    the student's blocks are spread evenly over the teacher's.

    Args:
        student, teacher: networks that take ``example``.
        example: ``(batch, channels, height, width)`` on the models' device.
        layers: "auto" or pairs of module names.
        where: the recipe key, for messages.

    Raises:
        RecipeError: a name that no called module has, or "auto" found nothing.
    """
    input_shape = tuple(example.shape)
    shapes_s, shapes_t = record_shapes(student, example), record_shapes(teacher, example)
    stages_s = stage_outputs(student, shapes_s, input_shape)
    stages_t = stage_outputs(teacher, shapes_t, input_shape)
    if layers != "auto":
        for ours, theirs in layers:
            for side, name, shapes, stages in (
                ("student", ours, shapes_s, stages_s),
                ("teacher", theirs, shapes_t, stages_t),
            ):
                if name not in shapes:
                    raise RecipeError(_unknown(where, side, name, shapes, stages))
        return [(ours, theirs) for ours, theirs in layers]
    for side, stages in (("student", stages_s), ("teacher", stages_t)):
        if not stages:
            what = f"the {side} has no module whose output has positions, so 'auto' finds nothing"
            raise RecipeError(
                fault(where, what, fix="name the layers: [[student module, teacher module], ...]")
            )
    sizes_s = {name: resolution(shape, input_shape) for name, shape in shapes_s.items()}
    modules_s, modules_t = inner_modules(student), inner_modules(teacher)
    if len(stages_s) == len(stages_t) and all(
        sizes_s.get(name) == size
        and type_before_parametrizations(modules_s[name]) is type_before_parametrizations(modules_t[name])
        for name, size in stages_t.items()
    ):
        return [(name, name) for name in reversed(stages_t)]
    return _by_depth(list(stages_s), list(stages_t), spread=_are_blocks(stages_s) and _are_blocks(stages_t))


def match_embeddings(
    student: nn.Module, teacher: nn.Module, example: Tensor, *, where: str = "layers"
) -> list[Pair]:
    """The (student, teacher) modules whose outputs enter the first block.

    Raises:
        RecipeError: a network that has nothing with positions before its first block.
    """
    found = []
    for side, module in (("student", student), ("teacher", teacher)):
        name = before_the_blocks(module, record_shapes(module, example), tuple(example.shape))
        if name is None:
            what = f"the {side} has no module with positions before its first block"
            raise RecipeError(
                fault(where, what, fix="use hidden with layers: [[student module, teacher module]]")
            )
        found.append(name)
    return [(found[0], found[1])]


def _are_blocks(stages: dict[str, Shape]) -> bool:
    """Whether the stages are the repeated blocks of a network that keeps one resolution."""
    return len(set(stages.values())) == 1


def _by_depth(student: list[str], teacher: list[str], *, spread: bool) -> list[Pair]:
    count = min(len(student), len(teacher))
    if not spread:
        return list(zip(reversed(student), reversed(teacher), strict=False))

    def even(names: list[str], step: int) -> str:
        return names[round(step * len(names) / count) - 1]

    return [(even(student, step), even(teacher, step)) for step in range(count, 0, -1)]


def _unknown(where: str, side: str, name: str, known: Iterable[str], stages: Iterable[str]) -> str:
    """One line for a module name that does not exist; a network's full list would not fit one."""
    fix = nearest(name, known)
    if not fix.startswith("did you mean"):
        fix = nearest(name, stages or [each for each in known if "." not in each])
    return fault(where, f"the {side} calls no module of that name", got=name, fix=fix)
