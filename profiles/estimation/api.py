"""How long an ONNX file takes on a device, from its operators and the device's facts: a point and a range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekd.artifact import sha256_file
from edgekd.device import DeviceSpec, check_opset, load_device
from edgekd.device_parts import PowerMode
from edgekd.errors import DeviceError
from edgekd.profiles.estimation.alike import case_of, fitted_alike
from edgekd.profiles.estimation.choices import check_counts, choose_precision, choose_threads
from edgekd.profiles.estimation.hardware import read_hardware
from edgekd.profiles.estimation.network_kinds import network_kind
from edgekd.profiles.estimation.notes import basis_of, notes_of
from edgekd.profiles.estimation.op_table import op_table
from edgekd.profiles.estimation.operators import Operator, Workload
from edgekd.profiles.estimation.parameters import fitted
from edgekd.profiles.estimation.pricing import terms_of
from edgekd.profiles.estimation.ranges import range_of
from edgekd.profiles.estimation.runtimes import RuntimeKind, runtime_kind
from edgekd.profiles.estimation.terms import OpSeconds, price
from edgekd.profiles.estimation.unseen_styles import values_for
from edgekd.profiles.estimation.workload import read_workload
from edgekd.profiles.inputs import Shape
from edgekd.profiles.predicted import LatencyEstimate, OperatorTime


def estimate(
    model: Path | str,
    device: str | DeviceSpec,
    *,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    power_mode: str | None = None,
    batch: int = 1,
    shape: Shape = None,
) -> LatencyEstimate:
    """What an ONNX file is expected to take on a device that need not be at hand.

    Args:
        device: a name, a device file, or a description. What its facts do not say is taken from its kind of
            core and memory, and said in the notes.
        runtime: ``onnxruntime``, ``tensorrt``, ``tflite`` or ``ncnn``; None = the device's.
        precision: ``fp32``, ``fp16`` or ``int8``; None = the file's, or what the runtime makes of it. A file whose
            weights alone are integers is priced in floating point and called ``int4 weights``.
        threads: None = all cores that share work evenly. A GPU runtime does not read it.
        power_mode: None = the highest clocks of the device's facts.
        batch: samples per inference, where the file leaves it open.
        shape: of the inputs, where the file leaves them open.

    Raises:
        DeviceError: unknown device, runtime or power mode, or a precision that the device lacks; one line.
        ModelFileError: see :func:`edgekd.profiles.estimation.workload.read_workload`.
        UserInputError: ``threads`` or ``batch`` below 1.
    """
    spec = device if isinstance(device, DeviceSpec) else load_device(device)
    engine = runtime_kind(runtime or spec.runtime)
    check_counts(threads=threads, batch=batch)
    mode = spec.power_mode(power_mode) if power_mode else None
    workload = read_workload(Path(model), batch=batch, shape=shape)
    found = estimate_workload(workload, spec, engine, precision=precision, threads=threads, mode=mode)
    notes = found.notes
    if engine.name == spec.runtime:
        try:
            check_opset(spec, workload.opset)
        except DeviceError as error:  # the network can be priced, and exported anew
            notes = (*notes, f"this very file does not load there: {error}")
    return replace(found, batch=batch, model_sha256=sha256_file(Path(model)), notes=notes)


def estimate_workload(
    workload: Workload,
    spec: DeviceSpec,
    engine: RuntimeKind,
    *,
    precision: str | None = None,
    threads: int | None = None,
    mode: PowerMode | None = None,
) -> LatencyEstimate:
    """:func:`estimate` for a network that is known by its operators and stands in no file."""
    hardware = read_hardware(spec, mode)
    wanted = choose_precision(precision, workload.precision, spec, hardware, engine)
    # Integers as weights alone: computed in floating point, called by what the file is.
    called = workload.precision if precision is None and workload.precision.endswith(" weights") else wanted
    table = op_table(workload.operators)
    crew = choose_threads(threads, hardware, engine)
    kind_of_fit = "gpu" if engine.gpu else "cpu"
    fit = fitted(kind_of_fit)
    values = fit.values if engine.gpu else values_for(fit, engine, hardware.style)
    seconds = price(terms_of(table, hardware, engine, wanted, crew), values)
    offset = fit.boards.get(f"{spec.name}|{engine.chain[0]}")
    kind = network_kind(table)
    style = hardware.gpu.kind.generation if engine.gpu and hardware.gpu else hardware.style
    known = offset is not None
    found = range_of(
        fit, engine, style=style, precision=called, kind=kind, known_board=known, macs=workload.macs
    )
    alike = fitted_alike(kind_of_fit).correction(case_of(table, hardware, engine, wanted, crew))
    factor = math.exp((offset or 0.0) + alike)
    point = float(seconds.total.sum()) * factor * 1000
    return LatencyEstimate(
        device=spec.name,
        runtime=engine.name,
        runtime_version=spec.runtime_version if engine.name == spec.runtime else "",
        threads=1 if engine.gpu else crew,
        batch=1,
        precision=called,
        p50_ms=point,
        low_ms=point * found.low,
        high_ms=point * found.high,
        validated=found.validated,
        basis=basis_of(fit, engine, found.rows, known=known),
        model_sha256="",
        power_mode=mode.name if mode else None,
        operators=_operators(workload.operators, seconds, factor),
        notes=(
            *workload.notes,
            *notes_of(spec, hardware, engine, mode, called, kind, found, asked=precision),
        ),
        inputs=workload.inputs,
    )


def _operators(operators: Sequence[Operator], seconds: OpSeconds, factor: float) -> tuple[OperatorTime, ...]:
    rows = []
    for position, operator in enumerate(operators):
        parts = {
            "compute": seconds.compute[position],
            "memory": seconds.memory[position],
            "overhead": seconds.overhead[position],
        }
        rows.append(
            OperatorTime(
                node=operator.node,
                op=operator.op,
                family=operator.family,
                milliseconds=float(seconds.total[position]) * factor * 1000,
                macs=operator.macs,
                bytes=operator.bytes,
                bound=max(parts, key=lambda name: parts[name]),
            )
        )
    return tuple(rows)
