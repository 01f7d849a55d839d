"""The rows of ``published.csv`` that can be fitted: each with its board, runtime, threads and network."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from architecture_table import canonical_shape
from boards import board

from edgekd.device_parts import PowerMode
from edgekd.device_spec import DeviceSpec
from edgekd.errors import DeviceError
from edgekd.profiles.estimation.hardware import Hardware, read_hardware
from edgekd.profiles.estimation.runtimes import RuntimeKind, runtime_kind

_FILE = Path(__file__).with_name("published.csv")
_ALL = slice(None)
# TFLite as its bindings run it when nobody asks for threads.
_ONE_THREAD = ("AutoBackend Interpreter() default num_threads",)
# Boards with one chip are left out together: a sister is no unseen board.
_CHIPS = (
    (r".*rk3588", "rk3588"), (r".*rk3399", "rk3399"), (r"raspberry-pi-5", "raspberry-pi-5"),
    (r"raspberry-pi-3b|raspberry-pi-2-v1", "bcm2837"), (r"jetson-orin-nano", "jetson-orin-nano"),
    (r"jetson-agx-orin", "jetson-agx-orin"), (r"phone-(pixel2|snapdragon-835)", "snapdragon-835"),
    (r"phone-(pixel3|snapdragon-845)$", "snapdragon-845"), (r"phone-.*kirin-?980", "kirin-980"),
)  # fmt: skip
_FAMILY = re.compile(r"^(ssd|ssdlite|retinanet|fcn|deeplabv3)_")


@dataclass(frozen=True)
class Row:
    """Attributes:
    threads: in use; None where a GPU computes.
    clusters: which kinds of cores were allowed.
    lab: who measured.
    """

    id: str
    device: str
    hardware: Hardware
    runtime: RuntimeKind
    precision: str
    threads: int | None
    clusters: slice
    model: str
    shape: str
    lab: str
    ms: float
    power: str
    trust: str

    @property
    def family(self) -> str:
        return model_family(self.model)

    @property
    def style(self) -> str:
        """Of the cores, or the GPU's generation."""
        gpu = self.hardware.gpu
        return gpu.kind.generation if self.runtime.gpu and gpu else self.hardware.style

    @property
    def board(self) -> str:
        """The same hardware under all names and clocks that it was published under."""
        return next((chip for names, chip in _CHIPS if re.match(names, self.device)), self.device)

    @property
    def cell(self) -> tuple[str, str, str, str]:
        """What errors are averaged over first."""
        return self.device, self.runtime.name, self.lab, self.family


def model_family(model: str) -> str:
    """``mobilenet_v2_0.35`` is of ``mobilenet_v2``; a detector is of its own kind.

    >>> model_family("yolov8n"), model_family("mobilenet_v2_1.0"), model_family("resnet101")
    ('yolov8', 'mobilenet_v2', 'resnet')
    """
    if found := _FAMILY.match(model):
        return found[1]
    rules = (
        r"mobilenet_v[123](?=_|$)", r"yolov?\d+", r"yolox", r"yolo_fastest",
        r"efficient(net_lite|netv2|net|det|vit|former)",
        r"mnasnet|mixnet|proxylessnasnet", r"(wide_)?res(net)", r"vgg", r"densenet", r"shufflenet", r"squeezenet",
        r"inception", r"nanodet", r"mobilenet\w*_yolo|mobilenet_yolo|mobilenetv2_yolov3",
    )  # fmt: skip
    for rule in rules:
        if found := re.match(rule, model):
            return "resnet" if "resnet" in found[0] and "ex" not in model else found[0]
    return model


def read_rows(path: Path = _FILE) -> Iterator[Row]:
    """Dense fp32, fp16 and int8 rows whose board and runtime are known."""
    with path.open(encoding="utf-8", newline="") as file:
        for entry in csv.DictReader(file):
            if row := _row(entry):
                yield row


def _row(entry: dict[str, str]) -> Row | None:
    notes = dict(part.split("=", 1) for part in entry["notes"].split("; ") if "=" in part)
    if entry["sparsity"] != "dense" or not entry["latency_ms"] or notes.get("trust") == "C":
        return None
    if entry["precision"] not in ("fp32", "fp16", "int8"):
        return None
    if notes.get("isa", "").startswith(("armv6", "armv7")):
        return None  # a 32-bit system: no device here is one
    try:
        runtime = runtime_kind(_runtime(entry, notes))
    except DeviceError:
        return None
    spec = board(entry["device"], entry["soc"])
    mode = _mode(spec, notes.get("power", ""))
    hardware = read_hardware(spec, mode)
    clusters = _clusters(hardware, notes.get("powersave", ""))
    if "powersave" in notes and int(entry["threads"]) > sum(
        each.cores for each in hardware.clusters[clusters]
    ):
        return None  # two threads to a core
    return Row(
        id=entry["id"],
        device=entry["device"],
        hardware=hardware,
        runtime=runtime,
        precision=entry["precision"],
        threads=None if runtime.gpu else _threads(entry, notes, hardware, clusters),
        clusters=clusters,
        model=entry["model"],
        shape=canonical_shape(entry["input_shape"]),
        lab=_lab(entry),
        ms=float(entry["latency_ms"]),
        power=notes.get("power", ""),
        trust=notes.get("trust", ""),
    )


def _mode(spec: DeviceSpec, name: str) -> PowerMode | None:
    names = {mode.name.casefold(): mode for mode in spec.power_modes}
    return names.get(name.casefold())


def _runtime(entry: dict[str, str], notes: dict[str, str]) -> str:
    """Empty for what is not modelled: PyTorch, and other runtimes on a GPU."""
    name = entry["runtime"]
    gpu = notes.get("unit") == "gpu"
    if gpu and name == "onnxruntime":
        return "onnxruntime-cuda"
    if name in ("PyTorch", "TorchScript") or (gpu and not name.startswith(("TensorRT", "onnxruntime"))):
        return ""
    return "tflite-unstated" if name == "TFLite" else name


def _clusters(hardware: Hardware, powersave: str) -> slice:
    """ncnn calls big the clusters above the middle of the highest and the lowest clock."""
    clocks = [cluster.ghz for cluster in hardware.clusters]
    big = sum(clock >= (max(clocks) + min(clocks)) / 2 for clock in clocks)
    if powersave.startswith("big"):
        return slice(0, big)
    return slice(big, None) if powersave.startswith("little") else _ALL


def _lab(entry: dict[str, str]) -> str:
    return re.sub(r"@.*", "", entry["source"])[:60]


def _threads(entry: dict[str, str], notes: dict[str, str], hardware: Hardware, clusters: slice) -> int:
    cores = sum(cluster.cores for cluster in hardware.clusters[clusters])
    if entry["threads"]:
        return min(int(entry["threads"]), cores)
    if notes.get("caveat", "").startswith(_ONE_THREAD):
        return 1
    return cores
