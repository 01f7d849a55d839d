"""``edgekd doctor``: what is installed here and what that allows."""

from __future__ import annotations

import importlib.util
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import typer

from edgekd.cli.output import JsonOption, write_result

_NEEDED_FOR = {
    "onnxruntime": "profile, evaluate",
    "torch": "compress, export",
    "timm": "compress, export",
    "accelerate": "compress",
    "onnx": "compress, export, check, latency estimates",
    "torch-pruning": "channel pruning",
    "transformers": "text models",
    "neural-compressor": "post-training quantization",
    "pyarrow": "Parquet tables",
    "elpv-dataset": "builtin:elpv",
    "openvino": "profile --runtime openvino",
    "executorch": ".pte files",
    "ai-edge-litert": ".tflite files",
}
_PROGRAMS = {
    "ssh": "profile --host",
    "qemu-aarch64": "profile --method emulate (devices emulate --setup fetches it where it can)",
    "gcc": "the emulation's counter",
    "trtexec": "TensorRT engines",
}


def doctor(json_to: JsonOption = None) -> None:
    """What is installed and what that allows.

    Versions, processor, runtime providers and caches; exits 1 when something that is needed is missing.
    """
    from edgekd.cpu import detect_cpu
    from edgekd.data.cache_dir import cache_dir

    cpu = detect_cpu()
    packages = {name: _version(name) for name in _NEEDED_FOR}
    cache = cache_dir()
    facts: dict[str, Any] = {
        "cpu": cpu.title, "arch": cpu.arch, "cores": cpu.cores, "vnni": cpu.has_vnni, "scheme": cpu.scheme,
        "packages": packages, "providers": _providers(), "cache": str(cache), "cache_writable": _writable(cache),
        "free_bytes": shutil.disk_usage(_existing(cache)).free,
        "programs": {name: shutil.which(name) for name in _PROGRAMS},
    }  # fmt: skip
    missing = packages["onnxruntime"] is None
    if not write_result(facts, json_to):
        typer.echo(f"processor    {cpu.title} ({cpu.arch}, {cpu.cores} cores); int8 scheme {cpu.scheme}")
        for name, use in _NEEDED_FOR.items():
            found = packages[name]
            mark = "ok " if found else "-- "
            typer.echo(f"{mark} {name:18} {found or 'not installed':14} {use}")
        typer.echo(f"providers    {', '.join(facts['providers']) or 'none'}")
        for name, use in _PROGRAMS.items():
            place = facts["programs"][name]
            typer.echo(f"{'ok ' if place else '-- '} {name:18} {'found' if place else 'not found':14} {use}")
        writable = "writable" if facts["cache_writable"] else "NOT WRITABLE: set EDGEKD_CACHE"
        typer.echo(f"cache        {cache} ({writable}, {facts['free_bytes'] / 1e9:.1f} GB free)")
    if missing:
        raise typer.Exit(1)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _providers() -> list[str]:
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _writable(path: Path) -> bool:
    return os.access(_existing(path), os.W_OK)
