"""resnet18 and efficientnet_lite0 at 224 px through ``compress`` with ``student: same``: int8 against own fp32.

The weights are random (no hub here; kernels do not care) and the training is short: this measures the file,
not the accuracy.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from conditions import write

from edgekd.pipeline import compress
from edgekd.recipe_file import parse_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["resnet18", "efficientnet_lite0"])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    result = {}
    for model in options.models:
        document = {
            "name": f"same-{model}",
            "teacher": f"timm:{model}@random",
            "data": {"path": "builtin:digits", "max_train": 96, "max_test": 64},
            "input": {"size": 224, "channels": 3},
            "stages": [
                {"prune": {"epochs": 0, "objectives": {"kd": {}}}},
                {
                    "quantize": {
                        "epochs": 1,
                        "batch_size": 16,
                        "lr": 1e-5,
                        "calibration_samples": 64,
                        "objectives": {"kd": {}},
                    }
                },
            ],
            "export": {"min_coverage": 1.0, "min_agreement": 0.0},
            "profile": {"threads": [1], "rounds": options.rounds, "runs": 40},
        }
        with tempfile.TemporaryDirectory() as folder:
            report = compress(parse_recipe(document, where=model), Path(folder) / "run")
        assert report is not None
        entry = report.deploy[0].model_dump(mode="json")
        result[model] = {
            "speedup_vs_student_fp32": entry["speedup_vs_student_fp32"],
            "interval": entry["speedup_interval"],
            "p50_ms": entry["latency"][0]["p50_ms"],
            "fp32_p50_ms": entry["baseline"]["latency"][0]["p50_ms"],
            "integer_ops": entry["quantization"]["integer_ops"],
            "float_ops": entry["quantization"]["float_ops"],
            "coverage_arm": entry["quantization"]["rules"]["arm"]["coverage"],
            "violations": entry["sparsity"]["violations"],
            "sparse_layers": entry["sparsity"]["layers"],
            "parity_agreement": entry["parity"]["agreement"],
            "warnings": entry["warnings"],
        }
        print(model, result[model], flush=True)
    write("same-224-1-thread", result)


if __name__ == "__main__":
    main()
