"""Which verbs need which packages: said in one line before anything is imported."""

from __future__ import annotations

from importlib.util import find_spec

from edgekd.errors import MissingDependencyError, fault


def need(verb: str, *packages: str, extra: str) -> None:
    """
    Raises:
        MissingDependencyError: a package is not installed; names the pip command.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            fault(verb, f"{', '.join(missing)} is not installed", fix=f"run: pip install 'edgekd[{extra}]'")
        )


def need_compress() -> None:
    need("compress", "torch", "timm", "accelerate", "onnx", "safetensors", "PIL", extra="compress")
