"""One peer's script on one job, inside the peer's environment, with an end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers.bounded import one_line, run_bounded
from benchmarks.peers.catalogue import Catalogue, Peer
from benchmarks.peers.environment import Environment, EnvironmentFailed, prepare
from benchmarks.peers.row import Row

MODEL_FILES = {"onnxruntime": "model.onnx", "openvino": "model.xml"}
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "EDGEKD_CACHE", "XDG_CACHE_HOME", "LD_LIBRARY_PATH")


def set_up(peer: Peer, catalogue: Catalogue, row: Row, *, timeout_s: float) -> tuple[Row, Environment | None]:
    """``row`` with the peer's version, and its environment; None when it does not install."""
    steps = catalogue.environments.get(peer.environment, [])
    try:
        found = prepare(peer.environment, steps, constraints=catalogue.constraints, timeout_s=timeout_s)
    except EnvironmentFailed as error:
        return row.failed("not installed", str(error)), None
    return row.model_copy(update={"version": found.versions.get(peer.package.lower())}), found


def quantize(
    peer: Peer, script: Path, python: Path, job: Path, row: Row, *, threads: int, timeout_s: float
) -> Row:
    """Run the peer's script on ``job``. The row says what it took, or why there is no file."""
    file = job / MODEL_FILES[peer.runtime]
    for old in (*job.glob(f"{file.name}*"), job / "result.json"):
        old.unlink(missing_ok=True)
    command = [str(path.absolute()) for path in (python, script, job)]
    with TemporaryDirectory() as scratch:  # some leave files wherever they are started
        ended = run_bounded(
            command, timeout_s=timeout_s, environ=clean_environ(threads), folder=Path(scratch)
        )
    reason = ended.reason(timeout_s)
    if reason is not None:
        (job / "log.txt").write_text(ended.output, encoding="utf-8")
        return row.failed("timed out" if ended.code is None else "failed", reason)
    if not file.is_file() or not (job / "result.json").is_file():
        return row.failed("failed", f"its script ended well but left no {file.name}")
    result = json.loads((job / "result.json").read_text(encoding="utf-8"))
    return row.model_copy(
        update={
            "quantize_s": float(result["seconds"]),
            "peak_memory_bytes": int(result["peak_memory_bytes"]) or None,
            "notes": [*row.notes, *(one_line(note) for note in result["notes"])],
            "size_bytes": model_bytes(file),
        }
    )


def model_bytes(file: Path) -> int:
    """The file and what belongs to it: external data of ONNX, whatever its suffix, and weights of OpenVINO."""
    if file.suffix == ".xml":
        return file.stat().st_size + file.with_suffix(".bin").stat().st_size
    return sum(path.stat().st_size for path in file.parent.glob(f"{file.name}*") if path.is_file())


def clean_environ(threads: int) -> dict[str, str]:
    """As little of this process's environment as a peer needs; no GPU, no hub."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    count = str(threads)
    return {
        **kept, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count,
        "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "Agg",
    }  # fmt: skip
