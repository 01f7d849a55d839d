"""``edgekd.profiles.emulate``: latency of an ONNX file on a board whose core is emulated here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.artifact import sha256_file
from edgekd.device import check_opset, load_device
from edgekd.errors import EdgeKDError, fault
from edgekd.profiles.emulation.cores import EmulatedCore, emulated_core
from edgekd.profiles.emulation.counts import Counts, assign, classes, merge, read_runs
from edgekd.profiles.emulation.emulator import run_guest
from edgekd.profiles.emulation.families import families_of_file
from edgekd.profiles.inputs import Shape, random_inputs, text_limits
from edgekd.profiles.onnx_file import read_summary
from edgekd.profiles.predicted import LatencyEmulation
from edgekd.profiles.session import open_session

if TYPE_CHECKING:
    from edgekd.device_spec import DeviceSpec

Progress = Callable[[str], None]


def emulate(
    model: Path,
    device: str | DeviceSpec,
    *,
    threads: int | None = None,
    batch: int = 1,
    shape: Shape = None,
    progress: Progress | None = None,
) -> LatencyEmulation:
    """Latency from the instructions that the real aarch64 ONNX Runtime executes on the board's core.

    Args:
        device: a name, a device file or a description.
        threads: of the runtime; None for as many as the board has fast cores.
        shape: dimensions after the batch, for inputs that leave them open.
        progress: told in words what goes on; it takes tens of seconds.

    Raises:
        MissingDependencyError: qemu, a compiler or the userland is missing; says what to install.
        DeviceError: no Arm board, or a core that cannot be emulated.
        ModelFileError: the file cannot be read, or does not run on that core.
        ValueError: ``threads`` or ``batch`` below 1.
    """
    if batch < 1 or (threads is not None and threads < 1):
        raise ValueError(f"batch and threads must be at least 1, got {batch} and {threads}")
    from edgekd.profiles.emulation.model import predict

    spec = load_device(device) if isinstance(device, str) else device
    core = emulated_core(spec)
    model = Path(model).resolve()
    summary = read_summary(model)
    if spec.runtime == "onnxruntime":
        check_opset(spec, summary.opset)
    counts, version, inputs = count(model, core, batch=batch, shape=shape, progress=progress)
    found = predict(counts, spec, core, threads=threads, precision=summary.precision)
    notes = [*found.notes]
    if not counts.operators:
        notes.append("the operators could not be told apart: the graph has loops or branches")
    return LatencyEmulation(
        device=spec.name,
        runtime="onnxruntime",
        runtime_version=version,
        threads=found.threads,
        batch=batch,
        precision=summary.precision,
        p50_ms=found.milliseconds,
        low_ms=found.low,
        high_ms=found.high,
        validated=found.validated,
        basis=found.basis,
        model_sha256=sha256_file(model),
        operators=found.operators,
        notes=tuple(notes),
        inputs=inputs,
        instructions=classes(counts.whole),
    )


def count(
    model: Path, core: EmulatedCore, *, batch: int = 1, shape: Shape = None, progress: Progress | None = None
) -> tuple[Counts, str, dict[str, Sequence[int]]]:
    """Instructions and cache lines of one inference, by operator.

    Returns:
        the counts, the runtime's version, the shapes of the inputs.
    """
    tell = progress or (lambda text: None)
    session = open_session(model)
    declared, limits = session.get_inputs(), text_limits(session)
    del session
    feeds = random_inputs(declared, batch=batch, shape=shape, text=limits)
    tell(f"running {model.name} on an emulated {core.name}")
    start = time.monotonic()
    request = {"do": "count", "model": str(model)}
    answer, folder, keeper = run_guest(request, feeds, core, counted=True)
    with keeper:
        with (folder / "counts.txt").open(encoding="ascii") as lines:
            runs = read_runs(lines)
        events = json.loads(Path(answer["profile"]).read_text(encoding="utf-8"))
    if len(runs) != 2:
        raise EdgeKDError(fault(str(model), "the counts are not complete", got=f"{len(runs)} runs"))
    profiled, plain = runs
    known = families_of_file(model, batch=batch, shape=shape)
    counts = Counts(merge(plain), assign(profiled, events, known))
    tell(f"{counts.whole.instructions / 1e6:.0f} M instructions counted in {time.monotonic() - start:.0f} s")
    shapes: dict[str, Sequence[int]] = {name: list(values.shape) for name, values in feeds.items()}
    return counts, str(answer["runtime_version"]), shapes
