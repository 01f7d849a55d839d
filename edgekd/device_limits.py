"""What a board's runtime cannot load, told before anyone copies a file there.

``devices/tensorrt_operators.json`` holds, for each release of TensorRT's ONNX parser, the operators that it
marks as supported. ONNX Runtime implements every standard operator of the opsets that it loads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib import resources

from edgekd.device_parts import JetPack
from edgekd.device_spec import DeviceSpec
from edgekd.errors import DeviceError, fault

_TITLES = {"onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT", "tflite": "TFLite", "ncnn": "ncnn"}


def check_opset(spec: DeviceSpec, opset: int, *, runtime: str | None = None) -> None:
    """Raise :class:`DeviceError` when the board's runtime cannot load a file of this opset.

    Args:
        runtime: by default the board's own.
    """
    least, most, version = _opsets(spec, runtime or spec.runtime)
    if not least <= opset <= most:
        what = f"its {version} cannot take the opset"
        fix = f"export with opset {min(spec.opset_export, most)}"
        if newer := next((j.version for j in _other(spec, runtime) if opset <= j.opset_max), None):
            fix += f"; JetPack {newer} takes it: --device {spec.name}@{newer}"
        raise DeviceError(
            fault(f"device {spec.name}", what, got=opset, allowed=f"{least} to {most}", fix=fix)
        )


def check_operators(spec: DeviceSpec, operators: Iterable[str], *, runtime: str | None = None) -> None:
    """Raise :class:`DeviceError` when the board's runtime lacks an operator.

    Args:
        operators: types, as the file's nodes name them. ``*_TRT`` are TensorRT's own plugins.
        runtime: by default the board's own.
    """
    if (runtime or spec.runtime) != "tensorrt":
        return
    version = spec.runtime_version if spec.runtime == "tensorrt" else _stated(spec, "tensorrt")
    known = _supported(version)
    lacking = sorted({op for op in operators if not op.endswith("_TRT")} - known) if known else []
    if lacking:
        fix = f"export with opset {spec.opset_export}, or replace it"
        if newer := next(
            (j.version for j in _other(spec, runtime) if set(lacking) <= _supported(j.tensorrt)), None
        ):
            fix = f"JetPack {newer} has it: --device {spec.name}@{newer}; or export with opset {spec.opset_export}"
        what = f"its {_opsets(spec, 'tensorrt')[2]} lacks an operator of the file"
        raise DeviceError(fault(f"device {spec.name}", what, got=", ".join(lacking), fix=fix))


def _opsets(spec: DeviceSpec, runtime: str) -> tuple[int, int, str]:
    """Lowest and highest opset of a runtime there, and what it is called."""
    if runtime == spec.runtime:
        jetpack = spec.chosen_jetpack() if runtime == "tensorrt" else None
        system = f" of JetPack {jetpack.version}" if jetpack else ""
        return spec.opset_min, spec.opset_max, f"{_TITLES[runtime]} {spec.runtime_version}{system}"
    support = spec.runtime_support(runtime)
    if support is None or support.opset_max is None:
        what = "no such runtime there that reads ONNX files"
        known = [each.name for each in spec.runtimes if each.opset_max] or [spec.runtime]
        raise DeviceError(fault(f"device {spec.name}", what, got=runtime, allowed=", ".join(known)))
    return support.opset_min or 1, support.opset_max, f"{_TITLES[runtime]} {support.version or ''}".strip()


def _other(spec: DeviceSpec, runtime: str | None) -> list[JetPack]:
    """The board's other JetPacks, where its runtime is TensorRT."""
    chosen = spec.chosen_jetpack()
    if (runtime or spec.runtime) != "tensorrt" or chosen is None:
        return []
    return [jetpack for jetpack in spec.jetpacks if jetpack.version != chosen.version]


def _stated(spec: DeviceSpec, runtime: str) -> str:
    support = spec.runtime_support(runtime)
    return (support.version if support else None) or "0"


def _supported(version: str) -> frozenset[str]:
    """Operators of the newest listed release that is not newer; nothing for older ones."""
    wanted = tuple(int(part) for part in version.split(".")[:2])
    releases = _releases()
    fits = [release for release in releases if release <= wanted]
    return releases[max(fits)] if fits else frozenset()


@cache
def _releases() -> dict[tuple[int, ...], frozenset[str]]:
    text = resources.files("edgekd.devices").joinpath("tensorrt_operators.json").read_text(encoding="utf-8")
    return {
        tuple(int(part) for part in release.split(".")): frozenset(" ".join(lines).split())
        for release, lines in json.loads(text)["releases"].items()
    }
