"""What ``trtexec`` prints, read into numbers.

The lines are those of ``samples/common/sampleReporting.cpp`` and ``sampleEngines.cpp`` of NVIDIA/TensorRT,
releases 8.0 to 10.16. The samples themselves come from ``--exportTimes``; the log tells what that file does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_METRIC = re.compile(r"\] (Latency|GPU Compute Time): (min = .*)$", re.MULTILINE)
_VALUE = re.compile(r"(min|max|mean|median|percentile\((\d+)%\)) = ([\d.eE+-]+) ms")
# A message goes on until the next stamp.
_ERROR = re.compile(r"\[E\] (?:\[TRT\] )?(.+(?:\n(?!\[\d\d/|&&&&).+)*)")
_REASON = re.compile(r"error|assert|unsupported|not supported|invalid|mismatch", re.IGNORECASE)
_SPARSE = r"\(Sparsity\) {}:[ \t]*(.*)$"


@dataclass(frozen=True)
class TrtexecLog:
    """Numbers of one run; what the log does not hold is None or empty.

    Attributes:
        version: of TensorRT, such as ``10.9.0``.
        latency_ms, compute_ms: of a query with its copies, and of its kernels alone: ``min``, ``max``,
            ``mean``, ``median``, ``p90``, ``p95``, ``p99``.
        throughput_qps: queries a second; above the inverse of the latency, since copies overlap with kernels.
        sparse_eligible, sparse_picked: layers whose weights are 2:4, and those that run so. None: not said,
            because sparsity was not asked for or nothing was built.
        host_bytes, gpu_bytes: most that the process and the GPU held.
        errors: messages of severity error, in order.
    """

    version: str = ""
    gpu: str = ""
    build_seconds: float | None = None
    load_ms: float | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)
    compute_ms: dict[str, float] = field(default_factory=dict)
    throughput_qps: float | None = None
    sparse_eligible: tuple[str, ...] | None = None
    sparse_picked: tuple[str, ...] | None = None
    host_bytes: int = 0
    gpu_bytes: int = 0
    errors: tuple[str, ...] = ()

    @property
    def major(self) -> int:
        """Major version; 0 where the log does not tell."""
        return int(self.version.split(".")[0]) if self.version else 0

    @property
    def why(self) -> str | None:
        """The error that names a reason; the first one where none does."""
        telling = [error for error in self.errors if _REASON.search(error)]
        return next(iter(telling or self.errors), None)


def parse_log(text: str) -> TrtexecLog:
    """Read the standard output and error of one ``trtexec``."""
    # Each metric is printed once; in old releases under its own heading and in another form, which is left.
    metrics = {name: _values(rest) for name, rest in _METRIC.findall(text)}
    used = [(int(cpu), int(gpu)) for cpu, gpu in re.findall(r"now: CPU (\d+), GPU (\d+) \(MiB\)", text)]
    return TrtexecLog(
        version=_version(text),
        gpu=_first(r"Selected Device: (.+)$", text) or "",
        build_seconds=_number(r"Engine built in ([\d.]+) sec", text),
        # Until 8.2 "loaded" is reading and deserializing together; later it is reading the file alone.
        load_ms=_milliseconds(
            _number(r"Engine deserialized in ([\d.]+) sec", text),
            _number(r"Engine loaded in ([\d.]+) sec", text),
        ),
        latency_ms=metrics.get("Latency", {}),
        compute_ms=metrics.get("GPU Compute Time", {}),
        throughput_qps=_number(r"Throughput: ([\d.]+) qps", text),
        sparse_eligible=_layers("Layers eligible for sparse math", text),
        sparse_picked=_layers("TRT inference plan picked sparse implementation for layers", text),
        host_bytes=max((cpu for cpu, _ in used), default=0) << 20,
        gpu_bytes=max((gpu for _, gpu in used), default=0) << 20,
        errors=tuple(" ".join(block.split()) for block in _ERROR.findall(text)),
    )


def _version(text: str) -> str:
    """From the first line, where every release has it: ``v8402`` is 8.4.2, ``v101602`` is 10.16.2."""
    found = _first(r"\[TensorRT v(\d+)\]", text)
    if found is None:
        return _first(r"TensorRT version: ([\d.]+)", text) or ""
    number = int(found)
    if number >= 100000:
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return f"{number // 1000}.{number // 100 % 10}.{number % 100}"


def _values(rest: str) -> dict[str, float]:
    return {f"p{percent}" if percent else name: float(value) for name, percent, value in _VALUE.findall(rest)}


def _layers(title: str, text: str) -> tuple[str, ...] | None:
    found = _first(_SPARSE.format(re.escape(title)), text)
    return None if found is None else tuple(name.strip() for name in found.split(",") if name.strip())


def _milliseconds(deserialized: float | None, loaded: float | None) -> float | None:
    told = [seconds for seconds in (deserialized, loaded) if seconds is not None]
    return sum(told) * 1e3 if told else None


def _number(pattern: str, text: str) -> float | None:
    found = _first(pattern, text)
    return None if found is None else float(found)


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1).strip() if found else None
