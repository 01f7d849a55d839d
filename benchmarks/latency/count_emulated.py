"""Instructions and cache lines of the published ONNX Runtime models on emulated cores, kept in emulated_counts.json.

Takes minutes a model (VGG-13: half an hour); what is stored already is not counted again. Needs
``edgekd devices emulate --setup``. Weights are random: kernels do not look at them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

from edgekd.device import load_device
from edgekd.profiles.emulation.api import count
from edgekd.profiles.emulation.cores import emulated_core
from edgekd.profiles.emulation.stored import to_json

FILE = Path(__file__).with_name("emulated_counts.json")
# Published name: timm's. All were measured at 224 x 224, exported by torch.onnx.export as they are.
MODELS = {
    "mobilenet_v3_small_0.5": "mobilenetv3_small_050",
    "mobilenet_v2_0.5": "mobilenetv2_050",
    "mobilenet_v2_1.0": "mobilenetv2_100",
    "mnasnet_a1": "mnasnet_a1",
    "mobilenet_v2_110d_timm": "mobilenetv2_110d",
    "ese_vovnet19b_dw": "ese_vovnet19b_dw",
    "repvgg_b0": "repvgg_b0",
    "vgg13": "vgg13",
}
BOARDS = ("raspberry-pi-4b", "raspberry-pi-5")
# Published in int8 too, at 299 x 299; quantized as ONNX Runtime's own tool does it. Not fitted, predicted only.
INT8 = {"inception_v3": "inception_v3"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help=f"published names: {', '.join(MODELS | INT8)}")
    parser.add_argument("--boards", nargs="*", default=BOARDS)
    options = parser.parse_args()
    for model in options.models or MODELS:
        for board in options.boards:
            core = emulated_core(load_device(board))
            if (core.name, model) in stored():
                continue
            name, integer = (MODELS | INT8)[model], model in INT8
            with tempfile.TemporaryDirectory() as folder:
                file = export(name, Path(folder), size=299 if integer else 224)
                counts, version, _ = count(quantize(file) if integer else file, core, progress=print)
            about = {"model": model, "timm": name, "precision": "int8" if integer else "fp32"}
            keep({**about, "runtime_version": version, **to_json(counts, core)})


def stored() -> dict[tuple[str, str], dict[str, Any]]:
    """What was counted so far, by core and published model."""
    rows = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else []
    return {(row["core"], row["model"]): row for row in rows}


def keep(row: dict[str, Any]) -> None:
    """Add one model on one core; a model a line."""
    rows = stored() | {(row["core"], row["model"]): row}
    lines = ",\n".join(json.dumps(rows[key], separators=(",", ":")) for key in sorted(rows))
    FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def export(name: str, folder: Path, *, size: int = 224) -> Path:
    """A timm model as its publisher exported it: opset 17 by torch's own exporter, batch norms left to the runtime."""
    import torch

    from edgekd.models.torchvision_shim import ensure_torchvision_ops

    ensure_torchvision_ops()
    import timm

    torch.manual_seed(0)
    file = folder / f"{name}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            timm.create_model(name).eval(), (torch.zeros(1, 3, size, size),), str(file),
            dynamo=False, opset_version=17, input_names=["input"], output_names=["logits"],
        )  # fmt: skip
    return file


def quantize(file: Path) -> Path:
    """Static int8 with uint8 activations, as ONNX Runtime recommends for its CPU kernels."""
    import numpy as np
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Noise(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            draw = np.random.default_rng(0)
            self.left = iter([{"input": draw.standard_normal((1, 3, 299, 299)).astype(np.float32)}] * 2)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    prepared, done = file.with_name("prepared.onnx"), file.with_name("int8.onnx")
    quant_pre_process(str(file), str(prepared))
    quantize_static(prepared, done, Noise(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)  # fmt: skip
    return done


if __name__ == "__main__":
    main()
