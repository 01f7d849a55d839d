"""A board's GPU as the latency model sees it: peaks, memory and multiprocessors in one power mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.device_facts import fact_number, fact_text, memory_bandwidth
from edgekd.profiles.estimation.core_kinds import GpuKind, gpu_kind

if TYPE_CHECKING:
    from edgekd.device_parts import PowerMode
    from edgekd.device_spec import DeviceSpec


@dataclass(frozen=True)
class Gpu:
    """Attributes:
    flop32, flop16, op8: GFLOP/s or GOP/s at the clock: CUDA cores in fp32, the fastest units otherwise;
        op8 0 where there are no int8 units.
    ghz: clock of the multiprocessors.
    bandwidth: GB/s that kernels reach.
    cpu_ghz: of the cores that launch.
    """

    kind: GpuKind
    sms: int
    ghz: float
    flop32: float
    flop16: float
    op8: float
    bandwidth: float
    l2_kib: float

    @property
    def tensor_cores(self) -> bool:
        return self.kind.tensor_flop16 > 0


def read_gpu(spec: DeviceSpec, mode: PowerMode | None = None) -> Gpu | None:
    """The GPU of a board; None where its facts name none whose generation is known."""
    kind = gpu_kind(fact_text(spec, "gpu_arch") or "")
    if kind is None:
        return None
    full_clock = fact_number(spec, "gpu_clock_max") or kind.mhz
    full_cores = int(fact_number(spec, "cuda_cores") or 0)
    if not full_cores:
        full_cores = int(fact_number(spec, "gpu_sm") or 8) * kind.cores_per_sm
    clock, cores, share = full_clock, full_cores, 1.0
    if mode is not None:
        clock, cores = mode.gpu_clock_mhz or clock, mode.cuda_cores or cores
        share = _memory_share(spec, mode)
    tensor = fact_number(spec, "tensor_cores")
    if tensor is None:
        tensor = full_cores / (64 / 8) / (4 if kind.generation in ("ampere", "blackwell") else 1)
    tensor_now = (tensor if kind.tensor_flop16 else 0) * cores / full_cores
    ghz = clock / 1000
    flop32 = 2 * cores * ghz
    flop16 = max(flop32 * kind.fp16_rate, tensor_now * kind.tensor_flop16 * ghz)
    op8 = 2 * tensor_now * kind.tensor_flop16 * ghz if kind.int8 else 0.0
    sheet = memory_bandwidth(spec) or 50.0
    measured = fact_number(spec, "gpu_bw_measured")
    bandwidth = (measured or sheet * kind.bandwidth_share) * share
    l2 = fact_number(spec, "gpu_l2") or kind.l2_kib
    return Gpu(kind, max(1, cores // kind.cores_per_sm), ghz, flop32, flop16, op8, bandwidth, l2)


def _memory_share(spec: DeviceSpec, mode: PowerMode) -> float:
    """Of the memory clock of the fastest mode. 1 where clocks are not written."""
    clocks = [each.memory_clock_mhz for each in spec.power_modes if each.memory_clock_mhz]
    return mode.memory_clock_mhz / max(clocks) if mode.memory_clock_mhz and clocks else 1.0
