"""From what the user wrote (``timm:``, ``torch:``, ``onnx:``, ``hf:`` or a folder) to a model that has been tried."""

from __future__ import annotations

from pathlib import Path

import torch

from edgekd.errors import ModelError, fault, nearest
from edgekd.models.control_flow import require_static_control_flow
from edgekd.models.loaded import LoadedModel, Request, Role
from edgekd.models.text_lengths import check_lengths
from edgekd.models.trial import require_no_norm_hooks, try_forward
from edgekd.preprocess_text import TextPreprocess
from edgekd.recipe import InputRecipe

FORMS = (
    "timm:NAME[@FILE|@random], torch:FILE.py:FACTORY[@CHECKPOINT], onnx:FILE, hf:DIR_OR_ID[@random] "
    "or a folder saved by edgekd"
)
KINDS = ("timm", "torch", "onnx", "hf")


def resolve_model(
    spec: str, *, classes: int, input: InputRecipe, base: Path, where: str, role: Role = "teacher"
) -> LoadedModel:
    """Load a model and prove that it takes its input and knows the data's classes.

    A teacher keeps its head: its class count must be the data's. A student's head is made anew where its
    weights were trained for other classes. Fresh weights are drawn from the global random state.

    Args:
        spec: see :data:`FORMS`.
        classes: the data's class count; 0 where the data has no class names: then the model's own.
        input: overrides of the model's preprocessing.
        base: folder that relative paths start from.
        where: start of error messages, such as ``"recipe.yaml: teacher"``.

    Returns:
        The model in eval mode on the CPU.

    Raises:
        ModelError: an unknown model, weights that do not fit, a class count or an input that differs.
        ModelFileError: an ONNX file that cannot be used.
    """
    model = _load(spec, Request(classes=classes, input=input, base=base, where=where, role=role))
    model.module.eval()
    require_no_norm_hooks(model.module, where)
    model.classes = try_forward(model.module, model.preprocess, where, size_fix=_size_fix(model))
    if model.weights != "onnx":
        example = torch.from_numpy(model.preprocess.example(2))
        require_static_control_flow(model.module, example, where)
        if isinstance(model.preprocess, TextPreprocess):
            model.notes = [*model.notes, *check_lengths(model.module, model.preprocess, where)]
    if classes and model.classes != classes:
        raise ModelError(
            fault(
                where,
                f"{spec} knows {model.classes} classes, the data has {classes}",
                fix=_class_fix(spec, role),
            )
        )
    return model


def _load(spec: str, request: Request) -> LoadedModel:
    kind, separator, rest = spec.partition(":")
    if separator and kind in KINDS and not rest:
        raise ModelError(fault(request.where, f"nothing after {kind}:", got=spec, allowed=FORMS))
    if separator and kind == "timm":
        from edgekd.models.timm_models import load_timm

        return load_timm(spec, request)
    if separator and kind == "torch":
        from edgekd.models.user_file import load_user

        return load_user(spec, request)
    if separator and kind == "onnx":
        from edgekd.models.black_box import load_black_box

        return load_black_box(spec, request)
    if separator and kind == "hf":
        from edgekd.models.hf_models import load_hf

        return load_hf(spec, request)
    folder = request.path(spec)
    if folder.is_dir():
        from edgekd.models.directory import load_model_dir

        return load_model_dir(folder, spec, request)
    raise ModelError(
        fault(request.where, "not a model", got=spec, allowed=FORMS, fix=_suggestion(spec, folder))
    )


def _suggestion(spec: str, path: Path) -> str | None:
    """What the user probably meant by something that is neither a known kind nor a folder."""
    kind, separator, rest = spec.partition(":")
    if separator:
        return nearest(kind, KINDS).replace("'?", f":{rest}'?")
    if path.suffix == ".onnx":
        return f"did you mean 'onnx:{spec}'?"
    if path.is_file():
        return f"a file of weights needs its architecture: timm:NAME@{spec}"
    if "/" not in spec:
        from edgekd.models.torchvision_shim import ensure_torchvision_ops

        ensure_torchvision_ops()
        import timm

        if timm.is_model(spec):
            return f"did you mean 'timm:{spec}'?"
    beside = [each.name for each in path.parent.iterdir() if each.is_dir()] if path.parent.is_dir() else []
    return "no such folder" + (f"; {nearest(path.name, beside)}" if beside and "/" in spec else "")


def _size_fix(model: LoadedModel) -> str:
    if isinstance(model.preprocess, TextPreprocess):
        return "set input.max_length to what it takes"
    fix = "set input.size to what it takes"
    if model.own_size is not None:
        fix += ", such as its own {}x{}".format(*model.own_size)
    config = getattr(model.module, "pretrained_cfg", None) or {}
    if model.spec.startswith("timm:") and "?" not in model.spec and config.get("fixed_input_size"):
        name, at, weights = model.spec.partition("@")
        side = max(model.preprocess.example_shape(1)[-2:])
        fix += f", or build it for another size: {name}?img_size={side}{at}{weights}"
    return fix


def _class_fix(spec: str, role: Role) -> str:
    if role == "student":
        return "let its factory take num_classes, or give weights that were trained on these classes"
    if spec.startswith("timm:") and "@" not in spec:
        return f"train the teacher on these classes first and give its checkpoint: {spec}@FILE"
    return "give a teacher that was trained on these classes, or the data that it was trained for"
