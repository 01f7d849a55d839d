"""How devices are printed: one line each, or one in full."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edgekd.device_facts import Cluster, clusters, fact_number, memory_bandwidth
from edgekd.device_parts import Fact, PowerMode
from edgekd.device_spec import DeviceSpec

_WIDE, _WITH_TITLES = 100, 145  # columns
_RUNTIMES = {"onnxruntime": ("ONNX Runtime", "ORT"), "tensorrt": ("TensorRT", "TRT"), "tflite": ("TFLite",) * 2,
             "ncnn": ("ncnn",) * 2}  # fmt: skip
_GROUPS = (
    ("Processor", ("soc", "cpu", "l1d", "l2", "l3", "int8_saturates", "hpl")),
    ("Memory", ("ram", "mem", "stream")),
    ("GPU", ("gpu", "cuda", "tensor", "sparse_tensor", "int8_gpu")),
    ("DLA and NPU", ("dla", "npu")),
    ("By power mode", ("mode_",)),
)
_SHORT = {"dot-product": "dot", "tensor-core": "tensor", "widening": "widen", "saturating": "saturate"}


def device_list(specs: Iterable[DeviceSpec], *, width: int) -> Table:
    """One line a device; without the title and with short names where the terminal is narrow."""
    wide = width >= _WIDE
    titles = width >= _WITH_TITLES
    between = ["what it is"] if titles else []
    after = ["GB/s"] if wide else []
    table = _table(
        "device", *between, "cores", "GHz", "memory", *after, "runtime", "int8", "2:4", tight=not wide
    )
    table.columns[0].no_wrap = True
    for spec in specs:
        row = summary(spec)
        table.add_row(
            spec.name,
            *([escape(spec.title)] if titles else []),
            row["cores"] if wide else _narrow(row["cores"]),
            row["clock"],
            row["memory"],
            *([row["bandwidth"]] if wide else []),
            _runtime(spec, wide),
            row["int8"] if wide else _SHORT.get(row["int8"], row["int8"]),
            row["sparse_2to4"],
        )
    return table


def summary(spec: DeviceSpec) -> dict[str, Any]:
    """What the list says of a device, as text; ``-`` is not known."""
    kinds = clusters(spec)
    bandwidth = memory_bandwidth(spec) or fact_number(spec, "stream_copy")
    support = spec.runtime_support(spec.runtime)
    return {
        "cores": " + ".join(_kind(kind, spec) for kind in kinds),
        "clock": "/".join(_number(kind.clock_ghz) for kind in kinds),
        "memory": _size(spec.memory_bytes),
        "bandwidth": _number(bandwidth),
        "int8": support.int8 if support else "yes" if spec.int8 else "none",
        "sparse_2to4": support.sparse_2to4 if support else "yes" if spec.sparse_2to4 else "none",
    }


def device_page(spec: DeviceSpec) -> Group:
    """One device: what it is, what runs on it, and each figure with its source."""
    sources: list[str] = []
    parts: list[Any] = [Text(spec.title, style="bold"), _head(spec)]
    if spec.runtimes:
        parts += [_title("Runtimes"), _runtimes(spec)]
        parts += [_line(f"{_RUNTIMES[each.name][0]}: {each.note}") for each in spec.runtimes if each.note]
    if spec.power_modes:
        parts += [_title("Power modes (* = set at start)"), _power_modes(spec.power_modes)]
        parts.append(_line("from " + _cite([mode.source for mode in spec.power_modes], sources)))
    if spec.jetpacks:
        parts += [_title("JetPacks (* = taken; another: --device NAME@VERSION)"), _jetpacks(spec)]
        wheels = dict.fromkeys(each.wheel for each in spec.jetpacks if each.wheel)
        parts += [_line(f"wheel: {wheel}") for wheel in wheels]
        parts.append(_line("from " + _cite([each.source for each in spec.jetpacks], sources)))
    if spec.trouble:
        parts.append(_title("Known trouble"))
        parts += [_line(f"{each.text} {_cite([each.source], sources)}") for each in spec.trouble]
    left = list(spec.facts)
    for name, prefixes in (*_GROUPS, ("Other", ("",))):
        chosen = [fact for fact in left if fact.key.startswith(prefixes)]
        left = [fact for fact in left if fact not in chosen]
        if chosen:
            parts += [_title(name), _facts(chosen, sources)]
    if sources:
        parts.append(_title("Sources"))
        listed = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 0), style="dim")
        for number, source in enumerate(sources, 1):
            listed.add_row(escape(f"[{number}]"), escape(source))
        parts.append(listed)
    return Group(*parts)


def _head(spec: DeviceSpec) -> Table:
    jetpack = spec.chosen_jetpack() if spec.runtime == "tensorrt" else None
    system = f" of JetPack {jetpack.version}" if jetpack else ""
    rows = [
        ("name", spec.name),
        ("processor", f"{spec.arch}, {spec.cores} cores"),
        ("memory", _size(spec.memory_bytes)),
        ("runtime", f"{_RUNTIMES[spec.runtime][0]} {spec.runtime_version}{system}"),
        ("opset", f"{spec.opset_min} to {spec.opset_max}; written: {spec.opset_export}"),
        ("int8", f"{summary(spec)['int8']}; scheme {spec.scheme}"),
        ("2:4", summary(spec)["sparse_2to4"]),
    ]
    if spec.arm is not None:
        has = [name for name in ("dotprod", "fp16", "i8mm") if getattr(spec.arm, name)]
        rows.append(("Arm level", f"Armv{spec.arm.level}" + "".join(f" + {name}" for name in has)))
        rows += [("wheels", spec.arm.wheel)] if spec.arm.wheel else []
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(value))
    return table


def _runtimes(spec: DeviceSpec) -> Table:
    table = _table("", "version", "opsets", "int8", "fp16", "2:4")
    for each in spec.runtimes:
        opsets = f"{each.opset_min or 1} to {each.opset_max}" if each.opset_max else "-"
        table.add_row(_RUNTIMES[each.name][0], each.version or "-", opsets, each.int8, _yes(each.fp16),
                      each.sparse_2to4)  # fmt: skip
    return table


def _power_modes(modes: Sequence[PowerMode]) -> Table:
    table = _table("", "watts", "cores", "GHz", "GPU MHz", "CUDA cores", "memory MHz", "DLA MHz")
    for mode in modes:
        second = mode.cpu_cores_2 is not None
        cores = f"{mode.cpu_cores} + {mode.cpu_cores_2}" if second else str(mode.cpu_cores)
        clocks = [mode.cpu_clock_ghz] + ([mode.cpu_clock_2_ghz] if mode.cpu_clock_2_ghz else [])
        name = f"{mode.name} *" if mode.default else mode.name
        rest = (mode.gpu_clock_mhz, mode.cuda_cores, mode.memory_clock_mhz, mode.dla_clock_mhz)
        table.add_row(escape(name), _number(mode.watts), cores, " / ".join(map(_number, clocks)),
                      *map(_number, rest))  # fmt: skip
    return table


def _jetpacks(spec: DeviceSpec) -> Table:
    chosen = spec.chosen_jetpack()
    table = _table("", "L4T", "TensorRT", "opset up to", "CUDA", "Python", "ONNX Runtime")
    for each in spec.jetpacks:
        name = f"{each.version} *" if each is chosen else each.version
        table.add_row(name, each.l4t, each.tensorrt, str(each.opset_max), each.cuda, each.python,
                      each.onnxruntime or "-")  # fmt: skip
    return table


def _facts(facts: Sequence[Fact], sources: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", style="dim")
    for fact in facts:
        unit = "core" if fact.unit == "cores" and fact.value == 1 else fact.unit
        # A formula says more than its number would.
        told = (
            fact.source if fact.source.startswith(("derived", "measured")) else _cite([fact.source], sources)
        )
        table.add_row(escape(fact.key), escape(f"{fact.value} {unit}".strip()), escape(told))
    return table


def _cite(cited: Iterable[str], sources: list[str]) -> str:
    """Numbers of sources, which are listed once at the end."""
    new = dict.fromkeys(cited)
    sources += [source for source in new if source not in sources]
    return " ".join(f"[{sources.index(source) + 1}]" for source in new)


def _table(*columns: str, tight: bool = False) -> Table:
    padding = (0, 1, 0, 0) if tight else (0, 2, 0, 0)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=padding)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _line(text: str) -> Table:
    """A paragraph with a dash before it."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 0))
    table.add_row("-", escape(text))
    return table


def _runtime(spec: DeviceSpec, wide: bool) -> str:
    version = spec.runtime_version if wide else ".".join(spec.runtime_version.split(".")[:2])
    return f"{_RUNTIMES[spec.runtime][not wide]} {version}"


def _narrow(cores: str) -> str:
    for long, short in (("x ", "x"), (" + ", "+"), ("Denver 2", "Denver"), ("-VNNI", "")):
        cores = cores.replace(long, short)
    return cores


def _kind(kind: Cluster, spec: DeviceSpec) -> str:
    core = (kind.core or spec.arch).removeprefix("Cortex-").removeprefix("x86-64 ")
    return f"{kind.cores or spec.cores}x {escape(core)}"


def _size(size: int | None) -> str:
    if size is None:
        return "-"
    return f"{size / 2**30:.0f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if value >= 10 else f"{round(value, 2):g}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
