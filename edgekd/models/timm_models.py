"""``timm:NAME`` (pretrained), ``timm:NAME@FILE`` and ``timm:NAME@random``."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgekd.errors import ModelError, fault
from edgekd.models.brief import brief
from edgekd.models.hub import hub_reached, offline_hub
from edgekd.models.loaded import LoadedModel, Request, Weights
from edgekd.models.preprocessing import from_timm
from edgekd.models.timm_spec import TimmSpec, parse_timm
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.models.weights import image_channels, load_checkpoint


def load_timm(spec: str, request: Request) -> LoadedModel:
    """The model with its weights; classes are left at 0 for the caller's trial to fill in."""
    parsed = parse_timm(spec, request.where)
    notes: list[str] = []
    channels: int = request.input.channels or 0
    weights: Weights
    if not parsed.weights:
        weights = "pretrained"
        module, notes = _pretrained(parsed, request, channels)
    elif parsed.weights == "random":
        weights = "random"
        module = build_timm(parsed, request.classes, channels, request.where)
    else:
        weights = "checkpoint"
        module, channels, notes = load_checkpoint(
            lambda classes, chans: build_timm(parsed, classes, chans, request.where),
            request.path(parsed.weights),
            request,
            channels=channels,
            heads=_heads(parsed.name),
            source=parsed.architecture,
        )
    config = dict(_data_config(module))
    side = parsed.options.get("img_size")
    if isinstance(side, int):
        config["input_size"] = (3, side, side)
    takes = image_channels(module) or channels or 3
    preprocess, more = from_timm(config, request.input, takes, request.where)
    return LoadedModel(
        module=module,
        spec=spec,
        preprocess=preprocess,
        classes=0,
        weights=weights,
        architecture=parsed.architecture,
        own_size=tuple(config["input_size"][1:]),
        notes=notes + more,
    )


def build_timm(
    spec: TimmSpec, classes: int, channels: int, where: str, *, pretrained: bool = False
) -> nn.Module:
    """A fresh module; 0 classes or channels means the architecture's own. Reads the global random state."""
    ensure_torchvision_ops()
    import timm

    options: dict[str, Any] = dict(spec.options)
    if classes:
        options["num_classes"] = classes
    if channels not in (0, 3):
        options["in_chans"] = channels
    try:
        return timm.create_model(spec.name, pretrained=pretrained, **options)
    except Exception as error:
        if pretrained:
            raise
        raise ModelError(fault(where, f"timm cannot build {spec.name}", got=brief(error))) from error


def _pretrained(spec: TimmSpec, request: Request, channels: int) -> tuple[nn.Module, list[str]]:
    ensure_torchvision_ops()
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(spec.name)
    ways_out = f"use timm:{spec.name}@FILE or timm:{spec.name}@random"
    if config is None or not config.has_weights:
        raise ModelError(
            fault(request.where, f"timm has no pretrained weights for {spec.name}", fix=ways_out)
        )
    classes = request.classes if request.role == "student" else 0
    reached = hub_reached()
    try:
        if reached:
            module = build_timm(spec, classes, channels, request.where, pretrained=True)
        else:
            with offline_hub():  # the weights may lie in the local cache
                module = build_timm(spec, classes, channels, request.where, pretrained=True)
    except Exception as error:
        if not reached:
            problem = f"the model hub is not reachable and {spec.name} is not in the local cache"
            raise ModelError(fault(request.where, problem, fix=ways_out)) from error
        problem = f"the pretrained weights of {spec.name} cannot be loaded"
        raise ModelError(fault(request.where, problem, got=brief(error), fix=ways_out)) from error
    notes = []
    if classes and classes != config.num_classes:
        notes.append(f"the pretrained head has {config.num_classes} classes; made anew for {classes}")
    if channels == 1:
        notes.append("the pretrained first convolution is summed over its colours to take one channel")
    return module, notes


def _heads(name: str) -> tuple[str, ...]:
    """Module names of the classifier; several for distilled models."""
    from timm.models import get_pretrained_cfg

    classifier = getattr(get_pretrained_cfg(name), "classifier", None)
    if isinstance(classifier, str):
        return (classifier,)
    return tuple(classifier or ())


def _data_config(module: nn.Module) -> dict[str, Any]:
    from timm.data import resolve_model_data_config

    return resolve_model_data_config(module)
