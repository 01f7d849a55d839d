"""Do the Arm kernels answer as the x86 ones? Five architectures, fp32 and int8, 100 real images, on emulated cores.

The real aarch64 ONNX Runtime runs under an emulated Cortex-A72 (no dot product) and Cortex-A76 (dot product); int8 on
both, fp32 on the first, whose float kernels are the other's. Files are written under the Arm rule, as a board's are.
EfficientNet-Lite0 has its ImageNet weights and reads crops of foolbox's 20 photos at 224 px. The other four are trained
for some steps on Fashion-MNIST's pictures at 96 px and read others of them: a network with random weights turns one
rounding into another answer.

Needs ``edgekd devices emulate --setup``. An image takes 0.3 to 6 s; what is in the result file is not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditions import RESULTS, conditions
from lite_nets import PACKAGES, lite0
from packages import unpacked
from photos import photos
from torch import nn
from vision_families import train

from edgekd.export.write import export_float, export_quantized
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.profiles import emulate_outputs
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import get_scheme

LITE0 = "efficientnet_lite0"
MODELS = {
    "mobilenetv2_050": 96, "mobilenetv3_small_050": 96, "resnet10t": 96, "vit_tiny_patch16_224": 96, LITE0: 224
}  # fmt: skip
RUNS = (("int8", "raspberry-pi-5"), ("int8", "raspberry-pi-4b"), ("fp32", "raspberry-pi-4b"))
STEPS = 80
BAR = 0.99
FILE = RESULTS / "arm-agreement-100-images.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help=", ".join(MODELS))
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--precision", choices=("int8", "fp32"), help="one of them alone; fp32 takes longest")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ensure_torchvision_ops()
    rows: dict[str, Any] = json.loads(FILE.read_text())["rows"] if FILE.exists() else {}
    for name in options.models or MODELS:
        wanted = {f"{name} {precision} {board}": (precision, board) for precision, board in RUNS
                  if options.precision in (None, precision)}  # fmt: skip
        if all(key in rows for key in wanted):
            continue
        with tempfile.TemporaryDirectory() as folder:
            files, images = prepare(name, options.images, Path(folder))
            for key, (precision, board) in wanted.items():
                if key not in rows:
                    rows[key] = one(files[precision], board, images)
                    keep(rows)
                    print(key, json.dumps(rows[key]), flush=True)


def one(file: Path, board: str, images: np.ndarray) -> dict[str, Any]:
    start = time.monotonic()
    found = emulate_outputs(file, board, {"input": images})
    return {
        **found.to_json(),
        "top1_met": found.top1 >= BAR,
        "explained": found.explained,
        "seconds": round(time.monotonic() - start),
    }


def keep(rows: dict[str, Any]) -> None:
    summary = {
        "rows": len(rows),
        "images": sum(row["samples"] for row in rows.values()),
        "lowest_top1": min(row["top1"] for row in rows.values()),
        "all_met": all(row["top1_met"] and row["explained"] for row in rows.values()),
    }
    FILE.write_text(
        json.dumps({"conditions": conditions(), "summary": summary, "rows": rows}, indent=2) + "\n"
    )


def prepare(name: str, count: int, folder: Path) -> tuple[dict[str, Path], np.ndarray]:
    """The fp32 and int8 files of one architecture, and its images ``(count, 3, size, size)``."""
    size = MODELS[name]
    if name == LITE0:
        unpacked(PACKAGES["code"])
        unpacked(PACKAGES[0])
        pictures = unpacked("foolbox==3.3.4") / "foolbox" / "data"
        model, images, seen = (
            lite0(),
            lite_photos(size, count, pictures, 3),
            lite_photos(size, 32, pictures, 1),
        )
    else:
        model = trained(name, size)
        images, seen = photos(size, count, seed=3)[0], photos(size, 32, seed=1)[0]
    known = torch.from_numpy(seen)
    files = {precision: folder / f"{name}-{precision}.onnx" for precision in ("fp32", "int8")}
    export_float(model, known[:1], files["fp32"], opset=20)
    quantized = prepare_qat(model, known[:1], get_scheme("u8s8"))
    quantized.calibrate(known.split(8))
    export_quantized(quantized, known[:1], files["int8"], opset=20, kernels="arm")
    return files, images.astype(np.float32)


def trained(name: str, size: int) -> nn.Module:
    import timm

    torch.manual_seed(0)
    sized = {"img_size": size} if name.startswith("vit") else {}
    model = timm.create_model(name, num_classes=10, **sized)
    train(model, size, STEPS, None)
    return model.eval()


def lite_photos(size: int, count: int, folder: Path, seed: int) -> np.ndarray:
    """Crops as :func:`photos.photos` cuts them, in the range that EfficientNet-Lite was trained on."""
    images, _ = photos(size, count, folder, seed=seed)
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
    std = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
    return np.asarray(((images * std + mean) * 255 - 127) / 128, np.float32)


if __name__ == "__main__":
    main()
