"""A fine-tuned text encoder in fp32, dynamic int8 and weight-only int8 and int4: bytes, answers, latency.

``--teacher`` is a stage folder that ``edgekd compress text-teacher`` left (MiniLM-L6 on Reuters R8). Agreement is
the share of test documents with the fp32 file's top-1; GPTQ and AWQ look at training documents. Dynamic int8 is
ONNX Runtime's own ``quantize_dynamic`` of the fp32 file. Latency: one thread, one process a file, rounds
interleaved, at two lengths of text: the fewer rows a product has, the more its weights' bytes count.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditions import write

from edgekd.data.open import open_data
from edgekd.data.source import Dataset, Split
from edgekd.evaluation import onnx_logits
from edgekd.export.write import export_float, export_weight_only
from edgekd.models.resolve import resolve_model
from edgekd.profiles import measure
from edgekd.quant.tables import quantize_tables
from edgekd.quant.weight_only import linear_layers, quantize_weights
from edgekd.recipe import DataRecipe, InputRecipe

FP32, DYNAMIC = "fp32", "int8 dynamic"
WAYS: dict[str, dict[str, Any]] = {
    "int8 rtn": {"bits": 8, "algorithm": "rtn"},
    "int4 rtn": {"bits": 4, "algorithm": "rtn"},
    "int4 gptq": {"bits": 4, "algorithm": "gptq"},
    "int4 awq": {"bits": 4, "algorithm": "awq"},
    "int4 gptq, float products": {"bits": 4, "algorithm": "gptq", "products": "float"},
}
OPSET = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--data", default="builtin:reuters-r8")
    parser.add_argument("--documents", type=int, default=400, help="of the test split, evenly spread")
    parser.add_argument("--calibration", type=int, default=64, help="training documents")
    parser.add_argument("--lengths", type=int, nargs="+", default=[8, 128], help="tokens")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = open_data(DataRecipe(path=options.data), base=Path(), text=True)
    loaded = resolve_model(str(options.teacher.resolve()), classes=len(data.classes), input=InputRecipe(),
                           base=Path(), where="benchmark")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        files, seconds = write_files(loaded, data, Path(temporary), options.calibration)
        rows = judge(files, loaded, data, options.documents)
        for length in options.lengths:
            measured = measure(files, rounds=options.rounds, runs=20, warmup=5, shape=(1, length))
            for name in files:
                ratio = measured.ratio(FP32, name)
                rows[name][f"p50_ms_{length}"] = round(measured.reports[name].p50_ms, 3)
                rows[name][f"speedup_{length}"] = [round(v, 2) for v in (ratio.value, ratio.low, ratio.high)]
    for name, row in rows.items():
        row["seconds"] = seconds.get(name)
    write("text-weight-only", {"data": options.data, "documents": options.documents, "files": rows})
    print(table(rows, options.lengths))


def write_files(
    loaded: Any, data: Dataset, folder: Path, calibration: int
) -> tuple[dict[str, Path], dict[str, float]]:
    """Every way's file, and the seconds that rounding its weights took."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model, preprocess = loaded.module.eval(), loaded.preprocess
    example = torch.from_numpy(preprocess.example(2))
    chosen = data.train.indices[:: max(1, len(data.train) // calibration)][:calibration]
    texts = [data.train.source.text(int(index)) for index in chosen]  # type: ignore[union-attr]
    batches = [torch.from_numpy(preprocess(texts[k : k + 16])) for k in range(0, len(texts), 16)]
    files = {FP32: folder / "fp32.onnx", DYNAMIC: folder / "dynamic.onnx"}
    export_float(model, example, files[FP32], opset=OPSET)
    quantize_dynamic(files[FP32], files[DYNAMIC], weight_type=QuantType.QInt8, per_channel=True)
    seconds: dict[str, float] = {}
    for name, way in WAYS.items():
        settings = dict(way)
        products = settings.pop("products", "int8")
        other = copy.deepcopy(model)
        layers, _ = linear_layers(other, example, 32)
        begun = time.perf_counter()
        quantize_weights(other, layers, batches, example, group_size=32, **settings)
        quantize_tables(other, 127)
        seconds[name] = round(time.perf_counter() - begun, 1)
        files[name] = folder / f"{name.replace(' ', '-').replace(',', '')}.onnx"
        export_weight_only(other, example, files[name], opset=OPSET, products=products)
    return files, seconds


def judge(files: dict[str, Path], loaded: Any, data: Dataset, documents: int) -> dict[str, dict[str, Any]]:
    indices = data.test.indices[:: max(1, len(data.test) // documents)][:documents]
    split = Split("benchmark", data.test.source, indices)
    logits = {name: onnx_logits(file, split, loaded.preprocess, threads=1) for name, file in files.items()}
    answers = {name: found.argmax(1) for name, found in logits.items()}
    return {
        name: {
            "mb": round(file.stat().st_size / 1e6, 2),
            "share_of_fp32": round(file.stat().st_size / files[FP32].stat().st_size, 3),
            "top1": float((answers[name] == split.labels).mean()),
            "agreement": float((answers[name] == answers[FP32]).mean()),
            "mean_logit_change": float(np.abs(logits[name] - logits[FP32]).mean()),
        }
        for name, file in files.items()
    }


def table(rows: dict[str, dict[str, Any]], lengths: list[int]) -> str:
    heads = [f"{length} tokens, ms (over fp32)" for length in lengths]
    lines = ["| file | MB | of fp32 | top-1 | as fp32 | logits move | " + " | ".join(heads) + " |",
             "| --- |" + " ---: |" * (5 + len(lengths))]  # fmt: skip
    for name, row in rows.items():
        times = [f"{row[f'p50_ms_{n}']:.2f} ({row[f'speedup_{n}'][0]:.2f}x)" for n in lengths]
        facts = (f"{row['mb']:.1f}", f"{row['share_of_fp32']:.3f}", f"{row['top1']:.2%}", f"{row['agreement']:.2%}",
                 f"{row['mean_logit_change']:.4f}")  # fmt: skip
        lines.append("| " + " | ".join((name, *facts, *times)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
