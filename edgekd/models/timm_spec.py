"""The parts of ``timm:NAME``; ``timm:NAME?drop_path_rate=0.1&img_size=96`` passes arguments to the model."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from edgekd.errors import ModelError, fault
from edgekd.models.torchvision_shim import ensure_torchvision_ops

_RESERVED = {
    "num_classes": "it follows the data",
    "in_chans": "set input.channels",
    "pretrained": "write timm:NAME",
}


@dataclass(frozen=True)
class TimmSpec:
    """The parts of ``timm:NAME[?key=value&...][@WEIGHTS]``."""

    name: str
    options: dict[str, Any]
    query: str
    weights: str

    @property
    def architecture(self) -> str:
        return f"timm:{self.name}?{self.query}" if self.query else f"timm:{self.name}"


def parse_timm(spec: str, where: str) -> TimmSpec:
    """Split the specification and check the name and the model arguments.

    Raises:
        ModelError: an unknown model (with the nearest name) or a malformed argument.
    """
    target, _, weights = spec.removeprefix("timm:").partition("@")
    name, _, query = target.partition("?")
    if spec.endswith("@"):
        raise ModelError(
            fault(where, "nothing after '@'", got=spec, allowed="timm:NAME@FILE or timm:NAME@random")
        )
    _check_name(name, where)
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ModelError(
            fault(where, "not model arguments", got=query, allowed="key=value&key=value")
        ) from None
    for key, _ in pairs:
        if key in _RESERVED:
            raise ModelError(
                fault(where, f"{key} cannot be set as a model argument", got=spec, fix=_RESERVED[key])
            )
    return TimmSpec(name, {key: _value(text) for key, text in pairs}, query, weights)


def _check_name(name: str, where: str) -> None:
    ensure_torchvision_ops()
    import timm

    if timm.is_model(name):
        architecture, _, tag = name.partition(".")
        if tag and name not in timm.list_models(f"{architecture}.*", pretrained=True):
            tags = timm.list_models(f"{architecture}.*", pretrained=True)
            raise ModelError(
                fault(
                    where,
                    "timm has no such weights of this model",
                    got=f"timm:{name}",
                    allowed=", ".join(f"timm:{known}" for known in tags) or f"timm:{architecture}@random",
                )
            )
        return
    close = difflib.get_close_matches(name, timm.list_models(), n=1, cutoff=0.5)
    hint = f"did you mean 'timm:{close[0]}'?" if close else "timm.list_models() lists them all"
    raise ModelError(fault(where, "timm has no such model", got=f"timm:{name}", fix=hint))


def _value(text: str) -> int | float | bool | str | None:
    """The number, truth value or nothing that ``text`` spells, else the text."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
