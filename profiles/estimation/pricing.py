"""The terms of an inference on a board under a runtime."""

from __future__ import annotations

from functools import partial

from edgekd.profiles.estimation.graphics_terms import gpu_terms
from edgekd.profiles.estimation.hardware import Hardware
from edgekd.profiles.estimation.op_table import OpTable
from edgekd.profiles.estimation.processors import cpu_terms, crew_of
from edgekd.profiles.estimation.runtimes import RuntimeKind
from edgekd.profiles.estimation.terms import Terms


def terms_of(
    table: OpTable,
    hardware: Hardware,
    runtime: RuntimeKind,
    precision: str,
    threads: int,
    clusters: slice = slice(None),
) -> Terms:
    """Args:
    threads: of the processor; a GPU runtime does not read them.
    clusters: of the processor's cores that may be used.
    """
    if runtime.gpu:
        assert hardware.gpu is not None  # asked for before
        return gpu_terms(table, hardware.gpu, runtime, precision)
    static = runtime.static and not hardware.clusters[0].kind.x86
    crews = partial(crew_of, hardware, static=static, clusters=clusters)
    return cpu_terms(table, crews, threads, runtime, precision)
