"""The preprocessing that a model was trained with, with the recipe's overrides on top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

from pydantic import ValidationError

from edgekd.errors import ModelError, fault, nearest
from edgekd.preprocess import Interpolation, Preprocess
from edgekd.recipe import InputRecipe

DEFAULT_SIZE = 224  # pixels; what most image classifiers are trained at


def from_timm(
    config: Mapping[str, Any], input: InputRecipe, channels: int, where: str
) -> tuple[Preprocess, list[str]]:
    """timm's data config (``timm.data.resolve_model_data_config``) as a :class:`Preprocess`.

    Args:
        config: ``input_size`` (channels, height, width), ``mean``, ``std``, ``interpolation``, ``crop_pct``,
            ``crop_mode``.
        input: the recipe's overrides.
        channels: what the built module takes; mean and deviation follow it.

    Returns:
        The preprocessing, and notes on what had to be approximated.
    """
    notes: list[str] = []
    _, height, width = config["input_size"]
    interpolation, crop_mode = config["interpolation"], config["crop_mode"]
    if interpolation not in get_args(Interpolation):
        notes.append(f"interpolation {interpolation!r} is not available; bicubic is used")
        interpolation = "bicubic"
    if crop_mode not in ("center", "squash"):
        notes.append(f"crop mode {crop_mode!r} is not available; center is used")
        crop_mode = "center"
    declared = {
        "height": height,
        "width": width,
        "mean": config["mean"],
        "std": config["std"],
        "interpolation": interpolation,
        "crop_pct": config["crop_pct"],
        "crop_mode": crop_mode,
    }
    return from_declared(declared, input, channels, where), notes


def from_declared(declared: Mapping[str, Any], input: InputRecipe, channels: int, where: str) -> Preprocess:
    """A user's ``PREPROCESS`` (any of :class:`Preprocess`'s fields) with the recipe's overrides.

    Missing fields are filled: 224 pixels, ImageNet's mean and deviation.

    Raises:
        ModelError: an unknown field, a value outside its range, or a mean of the wrong length.
    """
    stated = declared.get("channels")
    if stated is not None and stated != channels:
        raise ModelError(
            fault(where, f"the preprocessing says {stated} channels, the model takes {channels}")
        )
    fields = {"height": DEFAULT_SIZE, "width": DEFAULT_SIZE, **declared, "channels": channels}
    try:
        # mean and std are fitted to the channels before the model is validated for good
        plain = Preprocess.model_validate(fields)
    except ValidationError as error:
        raise ModelError(_first_problem(error, where)) from None
    return override(plain, input, where)


def override(own: Preprocess, input: InputRecipe, where: str) -> Preprocess:
    """``own`` with every set key of ``input``; mean and deviation are fitted to the channel count.

    Raises:
        ModelError: ``input.channels`` contradicts the model, or mean/std have the wrong length.
    """
    if input.channels is not None and input.channels != own.channels:
        raise ModelError(
            fault(
                where,
                f"the model takes {own.channels} channels",
                got=f"input.channels: {input.channels}",
                fix="remove input.channels, or give a model with that many",
            )
        )
    changes: dict[str, Any] = {}
    if input.size is not None:
        changes["height"], changes["width"] = (
            (input.size, input.size) if isinstance(input.size, int) else input.size
        )
    for key in ("interpolation", "crop_pct"):
        if getattr(input, key) is not None:
            changes[key] = getattr(input, key)
    for key in ("mean", "std"):
        values = cast("tuple[float, ...] | None", getattr(input, key))
        if values is not None and len(values) not in (1, own.channels):
            raise ModelError(
                fault(
                    f"{where}: input.{key}",
                    f"has {len(values)} values, the model takes {own.channels} channels",
                    got=values,
                    allowed=f"1 or {own.channels} values",
                )
            )
        changes[key] = _fit(values or getattr(own, key), own.channels)
    if min(changes["std"]) <= 0:
        raise ModelError(fault(f"{where}: input.std", "must be above 0", got=changes["std"]))
    for side in ("height", "width"):
        if changes.get(side, 1) < 1:
            raise ModelError(fault(f"{where}: input.size", "must be above 0", got=input.size))
    return own.model_copy(update=changes)


def _fit(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Averaged to one channel, or one value repeated."""
    if len(values) == channels:
        return tuple(float(value) for value in values)
    return (sum(values) / len(values),) * channels


def _first_problem(error: ValidationError, where: str) -> str:
    problems = error.errors()
    problem = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    spot = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = nearest(spot, Preprocess.model_fields)
        return fault(f"{where}: preprocess.{spot}", "unknown field", fix=known)
    return fault(f"{where}: preprocess.{spot}", problem["msg"], got=problem["input"])
