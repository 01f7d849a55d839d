"""ExecuTorch: reads ``.pte``. Which backend computes (XNNPACK as a rule) was decided when the file was made.

Its Python binding takes torch tensors, so this runtime brings torch; nothing else here does, and it is imported
in the worker process of such a file alone.
"""

from __future__ import annotations

import contextlib
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import ModelFileError, fault
from edgekd.profiles.inputs import random_inputs
from edgekd.profiles.runner import RunSettings
from edgekd.profiles.runtimes.loaded import Call, Loaded, declared, needed

_EXTRA = "executorch"
_METHOD = "forward"
# c10/core/ScalarType.h
_DTYPES = {
    0: "uint8",
    1: "int8",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
}


def version() -> str:
    needed("executorch.runtime", _EXTRA)
    return metadata.version("executorch")


def load(path: Path, settings: RunSettings) -> Loaded:
    """Load the method ``forward``; one program for each stream, all on one pool of threads."""
    torch = needed("torch", _EXTRA)
    needed("executorch.extension.pybindings.portable_lib", _EXTRA)._unsafe_reset_threadpool(settings.threads)
    with contextlib.suppress(ImportError):  # registers what int8 files have at their edges
        import_module("executorch.kernels.quantized")
    program = _program(path)
    feeds = random_inputs(
        _inputs(path, program.metadata(_METHOD)),
        batch=settings.batch,
        shape=settings.shape,
        seed=settings.seed,
    )
    tensors = [torch.from_numpy(values) for values in feeds.values()]

    def caller(fresh: Any) -> Call:
        method = fresh.load_method(_METHOD)

        def infer(program: Any = fresh) -> object:  # a method reads from its program, which must outlive it
            return method.execute(tensors)

        return infer

    return Loaded(
        caller(program),
        {name: list(values.shape) for name, values in feeds.items()},
        stream=lambda: caller(_program(path)),
    )


def _program(path: Path) -> Any:
    program = needed("executorch.runtime", _EXTRA).Runtime.get().load_program(str(path))
    if _METHOD not in program.method_names:
        raise ModelFileError(
            fault(
                str(path), "has no such method", got=_METHOD, allowed=", ".join(sorted(program.method_names))
            )
        )
    return program


def _inputs(path: Path, meta: Any) -> list[Any]:
    found = []
    for place in range(meta.num_inputs()):
        entry = meta.input_tensor_meta(place)
        if entry.dtype() not in _DTYPES:
            raise ModelFileError(
                fault(str(path), f"input {place} has an unknown type", got=entry.dtype(),
                      allowed=", ".join(_DTYPES.values()))
            )  # fmt: skip
        found.append(declared(f"input{place}", np.dtype(_DTYPES[entry.dtype()]), list(entry.sizes())))
    return found
