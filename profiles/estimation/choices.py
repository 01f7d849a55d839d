"""What an estimate is of, where the caller left it open: precision and threads; and what a device cannot do."""

from __future__ import annotations

from edgekd.device_spec import DeviceSpec
from edgekd.errors import DeviceError, UserInputError, fault
from edgekd.profiles.estimation.hardware import Hardware
from edgekd.profiles.estimation.runtimes import PRECISIONS, RuntimeKind


def check_counts(**counts: int | None) -> None:
    """Raise :class:`UserInputError` for a number of threads or samples below 1."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise UserInputError(fault(name, "must be at least 1", got=count, allowed="1 and above"))


def choose_precision(
    wanted: str | None, of_file: str, spec: DeviceSpec, hardware: Hardware, engine: RuntimeKind
) -> str:
    """The precision that the runtime computes in.

    Raises:
        DeviceError: the device lacks it, or has no GPU for a GPU runtime; one line.
        UserInputError: no precision at all.
    """
    if wanted is not None and wanted not in PRECISIONS:
        raise UserInputError(fault("precision", "is unknown", got=wanted, allowed=", ".join(PRECISIONS)))
    spot = f"device {spec.name}"
    gpu = hardware.gpu
    if engine.gpu and gpu is None:
        fix = "write gpu_arch, cuda_cores and gpu_clock_max into its facts"
        raise DeviceError(fault(spot, f"has no GPU that {engine.name} could use", fix=fix))
    if of_file.endswith(" weights"):
        of_file = "fp32"  # what the products are computed in
    chosen = wanted or of_file
    if wanted is None and of_file == "fp32" and halves_by_itself(hardware, engine):
        chosen = "fp16"
    support = spec.runtime_support(engine.name)
    unsupported = support is not None and support.int8 == "none"
    no_units = engine.gpu and gpu is not None and not gpu.op8
    if chosen == "int8" and (unsupported or no_units or not engine.int8):
        what = f"{engine.name} has no int8 kernels there"
        raise DeviceError(fault(spot, what, got=chosen, allowed="fp32, fp16", fix="estimate the float file"))
    return chosen


def halves_by_itself(hardware: Hardware, engine: RuntimeKind) -> bool:
    """ncnn computes an fp32 network in fp16 on cores that can, unless it is told otherwise."""
    return engine.name == "ncnn" and hardware.clusters[0].kind.flop16 > 0


def choose_threads(threads: int | None, hardware: Hardware, engine: RuntimeKind) -> int:
    """All cores; under a runtime that deals out equal parts, those that are not slow."""
    if threads is not None:
        return min(threads, hardware.cores)
    if not engine.static:
        return hardware.cores
    clocks = [cluster.ghz for cluster in hardware.clusters]
    middle = (max(clocks) + min(clocks)) / 2
    return sum(cluster.cores for cluster in hardware.clusters if cluster.ghz >= middle)
