"""An ONNX Runtime session, opened the same way everywhere, and batches through it.

onnxruntime is imported on use: it takes longer than all the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekd.errors import MissingDependencyError, ModelFileError, fault
from edgekd.profiles.onnx_file import read_summary
from edgekd.profiles.runtimes.providers import check_provider, check_used, provider_arguments

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


def runtime() -> Any:
    """The onnxruntime module.

    Raises:
        MissingDependencyError: it is not installed, or does not load on this processor.
    """
    try:
        import onnxruntime
    except ImportError as error:
        fix = "run: pip install onnxruntime"
        raise MissingDependencyError(
            fault("onnxruntime", "cannot be imported", got=str(error), fix=fix)
        ) from None
    return onnxruntime


def open_session(
    path: Path,
    *,
    threads: int = 1,
    provider: str = "cpu",
    kernel_rule: Literal["x86", "arm"] | None = None,
    optimized_to: Path | None = None,
    profile_to: Path | None = None,
    flush_denormals: bool = False,
) -> InferenceSession:
    """Load an ONNX file with all graph optimizations.

    A pool of more than one thread spins while the session runs and stops at once after it
    (``session.force_spinning_stop``): spinning pools of idle sessions slow every other one.

    Args:
        provider: a short name of :data:`edgekd.profiles.runtimes.providers.PROVIDERS`.
        kernel_rule: fuse as ONNX Runtime does on x86 or on Arm, whatever this machine is
            (``session.qdqisint8allowed``); None leaves the choice to the runtime.
        optimized_to: write the optimized graph there.
        profile_to: prefix of the file for ONNX Runtime's own profiler.
        flush_denormals: floats below 1.2e-38 count as zero (``session.set_denormal_as_zero``): a saturated softmax is
            full of them, and each costs a hundred cycles. It holds for all that the calling thread computes from
            then on, so ask for it in a process that does nothing else.

    Raises:
        ModelFileError: the file is missing, truncated, no ONNX file or lacks its external data, or the
            runtime cannot take it (an unknown operator, a newer opset); one line.
        MissingDependencyError: the installed runtime lacks the provider, or cannot load it.
        ValueError: ``threads`` below 1.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    path = Path(path)
    summary = read_summary(path)
    ort = runtime()
    check_provider(provider, ort)
    options = ort.SessionOptions()
    # XNNPACK has a pool of its own; two pools of as many threads would take turns.
    options.intra_op_num_threads = 1 if provider == "xnnpack" else threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what matters comes as an exception
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if flush_denormals:
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if provider != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if kernel_rule is not None:
        options.add_session_config_entry("session.qdqisint8allowed", "1" if kernel_rule == "arm" else "0")
    if optimized_to is not None:
        options.optimized_model_filepath = str(optimized_to)
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_to)
    try:
        session = ort.InferenceSession(
            str(path), options, providers=provider_arguments(provider, threads=threads)
        )
    except Exception as error:  # onnxruntime's exceptions derive from Exception alone
        what = f"ONNX Runtime {ort.__version__} cannot load the file (opset {summary.opset})"
        raise ModelFileError(fault(str(path), what, got=_reason(error))) from error
    check_used(provider, session.get_providers())
    return session


def run_batches(session: InferenceSession, inputs: np.ndarray, batch: int = 64) -> np.ndarray:
    """First output of the model for all ``inputs``.

    A model with a fixed batch takes that many at once; the last chunk is padded and cut again.

    Args:
        inputs: ``(n, ...)`` for the model's single input; cast to its type.

    Returns:
        float32 ``(n, ...)``, for a classifier the logits ``(n, classes)``.

    Raises:
        ModelFileError: the model has several inputs, another shape, or fails while running; one line.
    """
    return np.concatenate(list(iterate_batches(session, inputs, batch)))


def iterate_batches(session: InferenceSession, inputs: np.ndarray, batch: int = 64) -> Iterator[np.ndarray]:
    """:func:`run_batches`, one batch's outputs at a time."""
    if len(inputs) == 0:
        raise ValueError("no inputs")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    declared = session.get_inputs()
    if len(declared) != 1:
        names = ", ".join(entry.name for entry in declared)
        raise ModelFileError(fault("ONNX model", "has several inputs", got=names, allowed="one input"))
    entry = declared[0]
    check_shape(entry.name, entry.shape[1:], inputs.shape[1:])
    size = entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) else batch
    output = session.get_outputs()[0].name
    for start in range(0, len(inputs), size):
        chunk: np.ndarray = inputs[start : start + size].astype(input_dtype(entry), copy=False)
        count = len(chunk)
        if count < size and isinstance(entry.shape[0], int):
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], size - count, axis=0)])
        (result,) = run(session, {entry.name: np.ascontiguousarray(chunk)}, [output])
        yield np.asarray(result[:count], dtype=np.float32)


def run(
    session: InferenceSession, feeds: dict[str, np.ndarray], outputs: list[str] | None = None
) -> list[Any]:
    """``session.run`` whose failure is one line."""
    try:
        return list(session.run(outputs, feeds))
    except Exception as error:  # onnxruntime's exceptions derive from Exception alone
        shapes = ", ".join(f"{name} {list(value.shape)} {value.dtype}" for name, value in feeds.items())
        raise ModelFileError(fault("ONNX model", f"failed on {shapes}", got=_reason(error))) from error


def input_dtype(entry: Any) -> type:
    """numpy type of a declared input.

    Raises:
        ModelFileError: a type that edgekd has no samples for, such as strings.
    """
    if entry.type not in _DTYPES:
        allowed = ", ".join(_DTYPES)
        raise ModelFileError(fault(f"input {entry.name!r}", "unknown type", got=entry.type, allowed=allowed))
    return _DTYPES[entry.type]


def check_shape(name: str, declared: Any, given: Any) -> None:
    """Raise :class:`ModelFileError` when ``given`` does not fit the declared dimensions (a name fits all)."""
    fits = len(declared) == len(given) and all(
        not isinstance(want, int) or want == given[place] for place, want in enumerate(declared)
    )
    if not fits:
        shape = [want if isinstance(want, int) else "any" for want in declared]
        raise ModelFileError(
            fault(f"input {name!r}", "another shape", got=list(given), allowed=f"{shape} after the batch")
        )


def _reason(error: Exception) -> str:
    """ONNX Runtime's message without its code, source position and line breaks."""
    text = " ".join(str(error).split())
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return text if len(text) <= 300 else text[:297] + "..."
