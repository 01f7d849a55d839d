"""TensorRT through its own program ``trtexec``: no Python package of TensorRT is needed.

``open`` builds an engine from an ONNX file (with ``--sparsity=enable``, so that 2:4 weights may run as such:
TensorRT then chooses by time) and runs it once; each round is a ``trtexec`` of its own that loads the engine,
warms up and writes the time of every query (``--exportTimes``). Times are of a query with its copies to and from
the GPU.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgekd.errors import EdgeKDError, MissingDependencyError, ModelFileError, fault
from edgekd.profiles.inputs import random_inputs, stated_limits
from edgekd.profiles.onnx_file import read_summary
from edgekd.profiles.onnx_graph import read_inputs
from edgekd.profiles.runner import Finished, Opened, Runner, RunSettings
from edgekd.profiles.runtimes.trtexec_log import TrtexecLog, parse_log
from edgekd.profiles.timing import WARMUP_SHARE

_JETSON = Path("/usr/src/tensorrt/bin/trtexec")  # where JetPack and Debian packages put it, off the path
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_BUILD_SECONDS = 3600.0
_RUN_SECONDS = 600.0


def program() -> str:
    """Path of ``trtexec``.

    Raises:
        MissingDependencyError: it is neither on the path nor where JetPack puts it.
    """
    found = shutil.which("trtexec") or (str(_JETSON) if os.access(_JETSON, os.X_OK) else None)
    if found is None:
        fix = f"it comes with TensorRT; on a Jetson: export PATH=$PATH:{_JETSON.parent}"
        raise MissingDependencyError(fault("trtexec", "not on the path", fix=fix))
    return found


def start(path: Path, settings: RunSettings) -> Runner:
    return TrtexecRunner(path, settings)


class TrtexecRunner:
    """A :class:`~edgekd.profiles.runner.Runner` that starts ``trtexec`` for each round."""

    def __init__(self, path: Path, settings: RunSettings) -> None:
        self.path = Path(path)
        self.settings = settings
        self._program = program()
        self._folder = tempfile.TemporaryDirectory(prefix="edgekd-trtexec-")
        self._engine = self.path
        self._first_ms = 0.0
        self._host_bytes = 0
        self._major = 0
        self._cpu_start = _children_seconds()

    def open(self) -> Opened:
        precision = "unknown"
        notes: list[str] = []
        inputs: dict[str, list[int]] = {}
        if self.path.suffix.lower() == ".onnx":
            precision = read_summary(self.path).precision
            self._engine = Path(self._folder.name) / "model.engine"
            inputs, built = self._build(precision)
            notes = _notes(built)
        before = time.monotonic()
        times, log = self._run(["--warmUp=0", "--duration=0", "--iterations=1"], warmup_ms=0.0)
        seconds = time.monotonic() - before
        self._first_ms = times[0]
        self._major = log.major
        return Opened(
            "trtexec", log.version, log.load_ms if log.load_ms is not None else seconds * 1e3, times[0], 0,
            inputs, provider=log.gpu or "cuda", precision=precision, notes=notes,
        )  # fmt: skip

    def round(self) -> list[float]:
        settings = self.settings
        budget_ms = settings.max_seconds_per_round * 1e3
        if settings.until_stable:
            # trtexec cannot tell when it is warm: it gets the share that such a warm-up may take at most.
            warmup_ms, seconds, least = WARMUP_SHARE * budget_ms, (1 - WARMUP_SHARE) * budget_ms / 1e3, 2
        else:
            warmup_ms, seconds = min(settings.warmup * self._first_ms, WARMUP_SHARE * budget_ms), 0.0
            least = max(1, min(settings.runs, int(budget_ms / max(self._first_ms, 1e-6))))
        options = [f"--warmUp={round(warmup_ms)}", f"--duration={seconds:g}", f"--iterations={least}"]
        if settings.streams > 1:
            # NVIDIA/TensorRT release notes: --streams became --infStreams in 9
            options.append(f"--{'infStreams' if self._major >= 9 else 'streams'}={settings.streams}")
        return self._run(options, warmup_ms=round(warmup_ms))[0]

    def finish(self) -> Finished:
        return Finished(self._host_bytes, _children_seconds() - self._cpu_start)

    def close(self) -> None:
        self._folder.cleanup()

    def _build(self, precision: str) -> tuple[dict[str, list[int]], TrtexecLog]:
        declared = read_inputs(self.path)
        text = stated_limits(read_summary(self.path).metadata)
        feeds = random_inputs(declared, batch=self.settings.batch, shape=self.settings.shape, text=text)
        shapes = {name: list(values.shape) for name, values in feeds.items()}
        options = [f"--onnx={self.path}", f"--saveEngine={self._engine}", "--sparsity=enable"]
        options += ["--warmUp=0", "--duration=0", "--iterations=1"]
        if any(not isinstance(dim, int) for entry in declared for dim in entry.shape):
            # A file whose dimensions are all fixed does not take them.
            said = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
            options.append(f"--shapes={said}")
        # From 11 on types follow the file alone (NVIDIA, TensorRT 11 migration); before, these allow them.
        if precision != "fp32" and self._version().major < 11:
            options += ["--fp16"] + (["--int8"] if precision == "int8" else [])
        return shapes, self._trtexec(options, _BUILD_SECONDS)

    def _version(self) -> TrtexecLog:
        """``--help`` names the version in its first line."""
        return parse_log(self._call(["--help"], _RUN_SECONDS).stdout)

    def _run(self, options: list[str], *, warmup_ms: float) -> tuple[list[float], TrtexecLog]:
        file = Path(self._folder.name) / "times.json"
        file.unlink(missing_ok=True)
        log = self._trtexec([f"--loadEngine={self._engine}", f"--exportTimes={file}", *options], _RUN_SECONDS)
        self._host_bytes = max(self._host_bytes, log.host_bytes)  # not those of building
        try:
            queries = json.loads(file.read_text(encoding="utf-8"))
            # Releases before 8.5 write the warm-up too.
            times = [float(q["latencyMs"]) for q in queries if float(q["startComputeMs"]) >= warmup_ms]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EdgeKDError(
                fault(str(self.path), "trtexec wrote no times", got=f"{type(error).__name__}: {error}")
            ) from None
        if not times:
            raise EdgeKDError(
                fault(str(self.path), "trtexec timed no query", got=f"{len(queries)} in the warm-up")
            )
        return times, log

    def _trtexec(self, options: list[str], seconds: float) -> TrtexecLog:
        done = self._call(options, seconds)
        log = parse_log(done.stdout)
        if done.returncode != 0:
            got = log.why or f"exit status {done.returncode}"
            what = f"trtexec {log.version} failed".replace("  ", " ")
            raise ModelFileError(fault(str(self.path), what, got=got, fix="run: edgekd check on the file"))
        return log

    def _call(self, options: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(  # noqa: S603
                [self._program, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", timeout=seconds, check=False,
                preexec_fn=_dies_with_us if sys.platform == "linux" else None,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            what = f"trtexec did not end in {seconds:.0f} s"
            raise EdgeKDError(fault(str(self.path), what)) from None
        except OSError as error:
            raise EdgeKDError(
                fault(self._program, "cannot be started", got=error.strerror or str(error))
            ) from None


def _dies_with_us() -> None:
    """A build takes minutes and the GPU: the kernel ends it with this process, however that ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _notes(log: TrtexecLog) -> list[str]:
    """What became of 2:4 weights."""
    if not log.sparse_eligible:
        return []
    picked = len(log.sparse_picked or ())
    text = f"TensorRT runs {picked} of {len(log.sparse_eligible)} layers with 2:4 weights as sparse ones"
    return [text if picked else f"{text}: dense kernels were faster"]


def _children_seconds() -> float:
    """Processor time of processes that this one has started and waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
