"""What runs on the emulated core: ``python3 guest.py REQUEST.json``. Needs numpy and onnxruntime alone.

A request names the model, the inputs (``.npz``) and where the answer goes. ``count`` runs the model between marks that
``counter.c`` knows: once under the runtime's profiler, whose clock readings separate the operators, once without it.
``outputs`` runs every sample and keeps the outputs.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

_MAGIC = 0x4B440000


def main(request_file: str) -> None:
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    with np.load(request["inputs"], allow_pickle=False) as stored:
        feeds = {name: stored[name] for name in stored.files}
    answer = {"count": _count, "outputs": _outputs}[request["do"]](request, feeds)
    answer["runtime_version"] = onnxruntime.__version__
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


def _session(request: dict[str, Any], profile_to: str | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_to
    return onnxruntime.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])


def _count(request: dict[str, Any], feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    session = _session(request, request["profile"])
    session.run(None, feeds)
    _counted(session, feeds)
    profile = session.end_profiling()
    _counted(session, feeds)
    return {"profile": profile}


def _counted(session: Any, feeds: dict[str, np.ndarray]) -> None:
    _mark(1)
    session.run(None, feeds)
    _mark(2)


def _mark(code: int) -> None:
    """A system call that does nothing and that the plugin sees."""
    with contextlib.suppress(ProcessLookupError):
        os.getpgid(_MAGIC + code)


def _outputs(request: dict[str, Any], feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    """Every input holds one sample after the other along its first axis, ``batch`` at a time."""
    session = _session(request)
    names = [entry.name for entry in session.get_outputs()]
    batch, count = request["batch"], len(next(iter(feeds.values())))
    chunks = []
    for start in range(0, count, batch):
        some = {name: values[start : start + batch] for name, values in feeds.items()}
        chunks.append(session.run(names, some))
    arrays: dict[str, Any] = {
        name: np.concatenate([chunk[k] for chunk in chunks]) for k, name in enumerate(names)
    }
    np.savez(request["outputs"], **arrays)
    return {"outputs": names}


if __name__ == "__main__":
    main(sys.argv[1])
