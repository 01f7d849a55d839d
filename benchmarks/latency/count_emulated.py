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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help=f"published names; all of {', '.join(MODELS)}")
    parser.add_argument("--boards", nargs="*", default=BOARDS)
    options = parser.parse_args()
    for model in options.models or MODELS:
        for board in options.boards:
            core = emulated_core(load_device(board))
            if (core.name, model) in stored():
                continue
            with tempfile.TemporaryDirectory() as folder:
                counts, version, _ = count(export(MODELS[model], Path(folder)), core, progress=print)
            keep({"model": model, "timm": MODELS[model], "runtime_version": version, **to_json(counts, core)})


def stored() -> dict[tuple[str, str], dict[str, Any]]:
    """What was counted so far, by core and published model."""
    rows = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else []
    return {(row["core"], row["model"]): row for row in rows}


def keep(row: dict[str, Any]) -> None:
    """Add one model on one core; a model a line."""
    rows = stored() | {(row["core"], row["model"]): row}
    lines = ",\n".join(json.dumps(rows[key], separators=(",", ":")) for key in sorted(rows))
    FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def export(name: str, folder: Path) -> Path:
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
            timm.create_model(name).eval(), (torch.zeros(1, 3, 224, 224),), str(file),
            dynamo=False, opset_version=17, input_names=["input"], output_names=["logits"],
        )  # fmt: skip
    return file


if __name__ == "__main__":
    main()
