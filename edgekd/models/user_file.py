"""``torch:FILE.py:FACTORY[@CHECKPOINT]``: the user's own module, built by the user's own code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from edgekd.errors import ModelError, fault, nearest
from edgekd.models.loaded import LoadedModel, Request
from edgekd.models.preprocessing import from_declared, from_timm
from edgekd.models.text_preprocessing import declared_text
from edgekd.models.user_code import import_file, user_code
from edgekd.models.weights import image_channels, load_checkpoint
from edgekd.preprocess import Preprocess
from edgekd.preprocess_text import AnyPreprocess

_FORM = "torch:FILE.py:FACTORY or torch:FILE.py:FACTORY@CHECKPOINT"
_CLASSES = ("num_classes", "classes")
_CHANNELS = ("in_chans", "in_channels", "channels")


@dataclass(frozen=True)
class UserSpec:
    """The parts of ``torch:FILE.py:FACTORY[@CHECKPOINT]``; ``file`` as written."""

    file: str
    factory: str
    checkpoint: str

    @property
    def architecture(self) -> str:
        return f"torch:{self.file}:{self.factory}"


def parse_user(spec: str, where: str) -> UserSpec:
    """Split the specification.

    Raises:
        ModelError: not of the form ``torch:FILE.py:FACTORY[@CHECKPOINT]``.
    """
    stem, separator, rest = spec.removeprefix("torch:").partition(".py:")
    factory, at, checkpoint = rest.partition("@")
    if not separator or not stem or not factory.isidentifier() or bool(at) != bool(checkpoint):
        raise ModelError(fault(where, "not a model specification", got=spec, allowed=_FORM))
    return UserSpec(f"{stem}.py", factory, checkpoint)


def load_user(spec: str, request: Request) -> LoadedModel:
    """Build the module; classes are left at 0 for the caller's trial to fill in."""
    parsed = parse_user(spec, request.where)
    path = request.path(parsed.file).resolve()
    source = import_file(path, request.where)
    factory = _factory(source, parsed.factory, path, request.where)
    channels: int = request.input.channels or 0

    def build(classes: int, chans: int) -> nn.Module:
        return call_factory(factory, path, classes, chans, request.where)

    if parsed.checkpoint:
        file = request.path(parsed.checkpoint)
        module, channels, notes = load_checkpoint(
            build, file, request, channels=channels, source=parsed.architecture
        )
    else:
        module = build(request.classes, channels)
        notes = [
            f"the weights are what {parsed.factory}() returned: edgekd cannot tell whether they are trained"
        ]
    preprocess, more = _preprocess(module, source, request, channels)
    return LoadedModel(
        module=module,
        spec=spec,
        preprocess=preprocess,
        classes=0,
        weights="checkpoint" if parsed.checkpoint else "built" if request.role == "teacher" else "random",
        architecture=f"torch:{path}:{parsed.factory}",
        notes=notes + more,
    )


def build_user(spec: UserSpec, path: Path, classes: int, channels: int, where: str) -> nn.Module:
    """A fresh module from the factory in ``path``."""
    return call_factory(
        _factory(import_file(path, where), spec.factory, path, where), path, classes, channels, where
    )


def call_factory(
    factory: Callable[..., Any], path: Path, classes: int, channels: int, where: str
) -> nn.Module:
    """``factory()`` with those of classes and channels that it names among its parameters; float32."""
    spot = f"{path.name}:{getattr(factory, '__name__', 'FACTORY')}"
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    arguments = {}
    for names, value in ((_CLASSES, classes), (_CHANNELS, channels)):
        name = next((name for name in names if name in parameters), None)
        if name and value:
            arguments[name] = value
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind not in kinds and p.name not in arguments
    ]
    if needed:
        raise ModelError(
            fault(
                where,
                f"{spot} needs arguments that edgekd does not know",
                got=", ".join(needed),
                fix="give them defaults; num_classes and in_chans are passed where they are known",
            )
        )
    with user_code(path, where):
        module = factory(**arguments)
    if not isinstance(module, nn.Module):
        raise ModelError(fault(where, f"{spot} must return a torch.nn.Module", got=type(module).__name__))
    return module.to(torch.float32)


def _factory(source: ModuleType, name: str, path: Path, where: str) -> Callable[..., Any]:
    factory = getattr(source, name, None)
    if factory is None:
        own = [key for key, value in vars(source).items() if callable(value) and not key.startswith("_")]
        hint = nearest(name, own) if own else "the file defines no function"
        raise ModelError(fault(where, f"{path} has no {name}", fix=hint))
    if isinstance(factory, nn.Module) or not callable(factory):
        kind = type(factory).__name__
        raise ModelError(
            fault(where, f"{name} in {path} must be a function or class that makes the module", got=kind)
        )
    return factory


def _preprocess(
    module: nn.Module, source: ModuleType, request: Request, channels: int
) -> tuple[AnyPreprocess, list[str]]:
    """``PREPROCESS`` of the file, else the module's ``preprocess`` or ``pretrained_cfg``, else defaults."""
    declared = getattr(source, "PREPROCESS", None)
    if declared is None:
        declared = getattr(module, "preprocess", None)
    if isinstance(declared, Preprocess):
        declared = declared.model_dump()
    if isinstance(declared, Mapping) and "tokenizer" in declared:
        folder = Path(source.__file__ or "").parent
        return declared_text(declared, folder, request.input, request.where), []
    known = image_channels(module) or channels
    if isinstance(declared, Mapping):
        channels = known or declared.get("channels") or 3
        return from_declared(declared, request.input, channels, request.where), []
    channels = known or 3
    if getattr(module, "pretrained_cfg", None):
        from timm.data import resolve_model_data_config

        return from_timm(resolve_model_data_config(module), request.input, channels, request.where)
    preprocess = from_declared({}, request.input, channels, request.where)
    if request.input.size and request.input.mean and request.input.std:
        return preprocess, []
    size = f"{preprocess.height}x{preprocess.width}"
    return preprocess, [
        f"the file declares no PREPROCESS: {size} pixels, mean {preprocess.mean}, std {preprocess.std}"
    ]
