"""Which runtimes can be measured: a table, read without importing any of them.

One file a runtime. Each has ``version()``, which imports the runtime, and ``load(path, settings)``, which
opens a file with it and returns a :class:`~edgekd.profiles.runtimes.loaded.Loaded`; the worker process does
the rest, so that all runtimes are measured by the same loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import UserInputError, fault, nearest


@dataclass(frozen=True)
class Runtime:
    """Attributes:
    module: of this package.
    suffixes: of the files that it takes; the first runtime that takes a suffix is its default.
    extra: of ``pip install 'edgekd[EXTRA]'``; empty where pip brings nothing.
    in_worker: it runs in a worker process of ours; else it is a program, and a process of its own.
    """

    name: str
    module: str
    suffixes: tuple[str, ...]
    extra: str = ""
    in_worker: bool = True


RUNTIMES: Mapping[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime("onnxruntime", "ort", (".onnx",)),
        Runtime("openvino", "openvino", (".xml", ".onnx"), extra="openvino"),
        Runtime("executorch", "executorch", (".pte",), extra="executorch"),
        Runtime("litert", "litert", (".tflite",), extra="litert"),
        Runtime("trtexec", "trtexec", (".engine", ".plan", ".onnx"), in_worker=False),
    )
}


def runtime_of(path: Path, name: str | None = None) -> Runtime:
    """The runtime called ``name``, or the one that a file's suffix belongs to.

    Raises:
        UserInputError: no such runtime, or one that does not take this kind of file.
    """
    suffix = Path(path).suffix.lower()
    if name is None:
        for runtime in RUNTIMES.values():
            if runtime.suffixes[0] == suffix or suffix in runtime.suffixes[1:]:
                return runtime
        known = ", ".join(f"{kind} ({r.name})" for r in RUNTIMES.values() for kind in r.suffixes[:1])
        if Path(path).is_dir():
            raise UserInputError(fault(str(path), "is a folder, not a model file", allowed=known))
        raise UserInputError(fault(str(path), "no runtime takes such a file", got=suffix, allowed=known))
    if name not in RUNTIMES:
        raise UserInputError(fault("runtime", "unknown", got=name, fix=nearest(name, RUNTIMES)))
    chosen = RUNTIMES[name]
    if suffix not in chosen.suffixes:
        allowed = ", ".join(chosen.suffixes)
        raise UserInputError(fault(str(path), f"{name} takes no such file", got=suffix, allowed=allowed))
    return chosen


def in_each_runtime(
    models: Mapping[str, Path], runtimes: Sequence[str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Each file once for each of the named runtimes that takes it: models and runtimes for ``measure``.

    With no name or one, labels stay as they are; with several a label says its runtime: ``a.onnx (openvino)``.

    Raises:
        UserInputError: an unknown runtime, or a file that none of them takes.
    """
    for name in runtimes:
        if name not in RUNTIMES:
            raise UserInputError(fault("runtime", "unknown", got=name, fix=nearest(name, RUNTIMES)))
    paths: dict[str, Path] = {}
    chosen: dict[str, str] = {}
    for label, path in models.items():
        suffix = Path(path).suffix.lower()
        fitting = [name for name in runtimes if suffix in RUNTIMES[name].suffixes]
        if not fitting:
            # Nothing asked for, one runtime asked for, or a file of another kind beside: its own runtime.
            fitting = [runtime_of(path, runtimes[0] if len(runtimes) == 1 else None).name]
        for name in fitting:
            full = f"{label} ({name})" if len(runtimes) > 1 else label
            paths[full], chosen[full] = Path(path), name
    return paths, chosen
