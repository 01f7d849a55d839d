"""Every vision family at its native resolution: 2:4 and int8, export, agreement, coverage, speed over own fp32.

The file is masked 2:4, quantized, exported and read back; then the choice that a deployment makes (integers,
a mix, float) is made by the same code, and the speed of what it chose stands beside that of the integers.

The weights are random unless ``--pretrained`` (kernels do not care). Batch norms get the statistics of real
images; ``--last`` steps train the last block, what is behind it and the classifier on Fashion-MNIST; then the
classifier is fitted by least squares, to other pictures than those that judge. ``--steps`` trains everything.

Agreement: the file's top-1 against two simulations in torch, fake-quant (what training sees) and the integers of
the runtime to the last bit (:mod:`edgekd.quant.exact`). A random network enlarges one value that was rounded the
other way until the answer differs, so the first says more about the network than about the file.
Latency: one thread, both files in processes of their own, rounds interleaved. With ``--substitute relu`` the
integer files have other activations, the fp32 file keeps its own; the result has a file of its own.
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
from conditions import RESULTS, write
from family_exchange import OWN, asked, beside_own, exchanged, mean
from photos import photos
from torch import nn

from edgekd.blocks import block_of
from edgekd.errors import EdgeKDError
from edgekd.export.coverage import check_coverage
from edgekd.export.parity import parity
from edgekd.export.sparsity import check_sparsity
from edgekd.export.write import ExportedFile, export_float, export_quantized
from edgekd.models.reparametrize import reparametrize
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.profiles import measure
from edgekd.profiles.session import open_session, run_batches
from edgekd.prune.apply import prune
from edgekd.quant.exact import ExactTwin
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import get_scheme
from edgekd.quant.settle import settle_scales
from edgekd.recipe import ProfileRecipe
from edgekd.variant_times import Here
from edgekd.variants import INT8, Variant, choose, write_variants

CONVOLUTIONS = (
    "resnet18", "resnet50", "regnety_002", "mobilenetv2_100", "mobilenetv3_small_050",
    "mobilenetv3_large_100", "mobilenetv4_conv_small", "efficientnet_lite0", "efficientnet_b0",
    "ghostnet_100", "repvgg_a0", "mobileone_s0",
)  # fmt: skip
HYBRIDS = (
    "convnext_atto", "edgenext_xx_small", "fastvit_t8", "efficientvit_b0", "mobilevit_xxs", "levit_128s",
    "tiny_vit_5m_224", "poolformer_s12",
)  # fmt: skip
TRANSFORMERS = (
    "vit_tiny_patch16_224", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224",
)  # fmt: skip
PATTERN = "2:4"
FITTED = 160  # images that the classifier of a random network is fitted to
GROUPS = {"conv": CONVOLUTIONS, "hybrid": HYBRIDS, "transformer": TRANSFORMERS}
OPSET = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help=f"timm names or groups ({', '.join(GROUPS)}); all of them")
    parser.add_argument("--photos", type=Path, help="a folder of photos; Fashion-MNIST without it")
    parser.add_argument("--images", type=int, default=200, help="for the agreement; 0 skips it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=0, help="of training before the export")
    parser.add_argument("--last", type=int, default=0, help="steps of training the last block alone")
    parser.add_argument("--agreement-only", action="store_true", help="no latency")
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument(
        "--substitute",
        nargs="*",
        default=[],
        metavar="NEW or OLD=NEW",
        help="activations exchanged where a network has them: relu for all, or silu=hardswish gelu=relu",
    )
    parser.add_argument("--keep", type=Path, help="a folder for the ONNX files")
    parser.add_argument("--name", help="of the result file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ensure_torchvision_ops()
    named = options.models or list(GROUPS)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for model in [entry for name in named for entry in GROUPS.get(name, (name,))]:
            rows[model] = one(model, folder, options)
            print(model, json.dumps(rows[model]), flush=True)
    means = {
        "int8": mean([row["speedup"] for row in rows.values() if "speedup" in row]),
        "deployed": mean([row["deployed"]["speedup"] for row in rows.values() if "deployed" in row]),
    }
    result: dict[str, Any] = {"geometric_mean_speedup": means, "models": rows}
    name = options.name or OWN
    if options.substitute:
        name = options.name or f"{OWN}-exchanged"
        result |= {"substitute": asked(options.substitute), "beside_own": beside_own(rows, RESULTS)}
    write(name, result)
    print(json.dumps(means))
    if options.substitute:
        print(json.dumps(result["beside_own"]))
    print(table(rows))


def one(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One model's row; a failure is a row that says why."""
    row: dict[str, Any] = {}
    try:
        model, size = build(name, pretrained=options.pretrained, folder=options.photos, steps=options.steps,
                            last=options.last)  # fmt: skip
        seen = torch.from_numpy(photos(size, 32, options.photos, seed=1)[0])
        row["size"] = size
        float_file, integer_file = folder / f"{name}-fp32.onnx", folder / f"{name}-int8.onnx"
        start = time.perf_counter()
        export_float(model, seen[:2], float_file, opset=OPSET)
        reparametrize(model, seen[:2])
        masks = list(prune(model, PATTERN).layers)
        if options.substitute:
            row["substituted"] = exchanged(model, seen[:2], options.substitute)
        row["fp32_export_s"] = round(time.perf_counter() - start, 1)
        start = time.perf_counter()
        quantized = prepare_qat(model, seen[:2], get_scheme("u8s8"))
        quantized.calibrate(seen.split(8))
        settle_scales(quantized, seen[:2])
        row["prepare_s"] = round(time.perf_counter() - start, 1)
        start = time.perf_counter()
        notes = export_quantized(quantized, seen[:2], integer_file, opset=OPSET).notes
        row["int8_export_s"] = round(time.perf_counter() - start, 1)
        row["notes"] = list(notes)
        zeros = check_sparsity(integer_file, PATTERN, layers=masks)
        row["2:4"] = {"violations": zeros.violations, "layers": zeros.layers, "masks": len(masks)}
        for rule in ("x86", "arm"):
            covered = check_coverage(integer_file, rule)  # type: ignore[arg-type]
            row[rule] = {
                "integer_ops": covered.integer_ops,
                "float_ops": covered.float_ops,
                "mac_coverage": covered.mac_coverage,
                "leftover_qdq": covered.leftover_qdq,
                "float_nodes": covered.float_nodes,
            }
        row["mb"] = [round(file.stat().st_size / 1e6, 2) for file in (float_file, integer_file)]
        if options.images:
            row["agreement"] = agreement(quantized, integer_file, size, options)
        if options.agreement_only:
            return row
        trained = Variant(INT8, quantized, ExportedFile(integer_file, OPSET, "", integer_file.stat().st_size))
        tried = write_variants(
            trained, seen[:2], folder, clock=Here(ProfileRecipe(threads=[1])), opset=OPSET, metadata={}
        )
        files = {"baseline": float_file, **{variant.name: variant.file.path for variant in tried}}
        measured = measure(files, threads=1, rounds=options.rounds, runs=options.runs, warmup=3)
        for variant in tried[1:]:
            variant.file.path.unlink()
        ratio = measured.ratio("baseline", INT8)
        row["speedup"], row["interval"] = round(ratio.value, 3), [round(ratio.low, 3), round(ratio.high, 3)]
        chosen = choose(tried, measured, dict.fromkeys((variant.name for variant in tried), None))
        ratio = measured.ratio("baseline", chosen.name)
        row["deployed"] = {"file": chosen.name, "speedup": round(ratio.value, 3),
                           "interval": [round(ratio.low, 3), round(ratio.high, 3)],
                           "float_layers": chosen.float_layers}  # fmt: skip
        row["p50_ms"] = {
            label: round(report.to_json()["p50_ms"], 3) for label, report in measured.reports.items()
        }
    except (EdgeKDError, RuntimeError) as error:
        row["error"] = f"{type(error).__name__}: {error}"
    return row


def build(
    name: str, *, pretrained: bool, folder: Path | None, steps: int, last: int = 0
) -> tuple[nn.Module, int]:
    """The timm model in eval mode, and its native resolution."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=pretrained)
    size = int(model.pretrained_cfg["input_size"][-1])
    if not pretrained:
        if steps:
            train(model, size, steps, folder)
        inputs, labels = (torch.from_numpy(part) for part in photos(size, FITTED, folder, seed=2))
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over the passes below
        with torch.no_grad():
            if norms:
                model.train()(inputs[:32])
        if last:
            train_last_block(model, size, last, folder)
        with torch.no_grad():
            fit_classifier(model.eval(), inputs, labels)
    return model.eval(), size


def train(model: nn.Module, size: int, steps: int, folder: Path | None) -> None:
    """Some steps of AdamW at up to 96 pixels, or at the only resolution that the model takes."""
    small = min(size, 96)
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(2, 3, small, small))
    except (AssertionError, RuntimeError):
        small = size
    descend(model.train(), torch.optim.AdamW(model.parameters(), 1e-3), small, steps, 16, folder)


def descend(
    model: nn.Module, optimizer: torch.optim.Optimizer, size: int, steps: int, batch: int, folder: Path | None
) -> None:
    """Cross-entropy of every answer that the model gives."""
    inputs, labels = (torch.from_numpy(part) for part in photos(size, batch * steps, folder, seed=4))
    for given, wanted in zip(inputs.split(batch), labels.split(batch), strict=True):
        answer = model(given)
        answers = answer if isinstance(answer, (tuple, list)) else (answer,)
        loss = torch.stack([nn.functional.cross_entropy(each, wanted) for each in answers]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train_last_block(model: nn.Module, size: int, steps: int, folder: Path | None) -> None:
    """Batch norms keep their statistics; the gradient stops at the last block's input."""
    layers = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
        and getattr(layer, "out_features", 0) != model.num_classes
    ]
    last = block_of(layers[-1])
    behind = False
    for name, parameter in model.named_parameters():
        behind = behind or name.startswith(f"{last}.")
        parameter.requires_grad_(behind)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    descend(model, torch.optim.AdamW(trained, 2e-3), size, steps, 8, folder)
    model.requires_grad_(True)


def fit_classifier(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    """Ridge regression from what the classifier reads to one-hot labels."""
    heads = [
        layer
        for layer in model.modules()
        if isinstance(layer, nn.Linear) and layer.out_features == model.num_classes
    ]
    read: dict[nn.Module, list[torch.Tensor]] = {head: [] for head in heads}
    for head in heads:
        head.register_forward_pre_hook(lambda layer, given: read[layer].append(given[0]))
    for batch in inputs.split(32):
        model(batch)
    for head in heads:
        head._forward_pre_hooks.clear()
        if not read[head]:
            continue
        features = torch.cat(read[head]).double()
        center, spread = features.mean(0), features.std() + 1e-12
        x = (features - center) / spread
        targets = nn.functional.one_hot(labels, head.out_features).double() - 0.1
        weight = x.T @ torch.linalg.solve(x @ x.T + 0.1 * x.shape[1] * torch.eye(len(x)), targets) / spread
        head.weight.copy_(weight.T)
        head.bias.copy_(-(center @ weight))


def agreement(
    quantized: QuantizedModel, file: Path, size: int, options: argparse.Namespace
) -> dict[str, float | int]:
    images, labels = photos(size, options.images, options.photos, seed=3)
    quantized.set_phase("frozen")
    exact = ExactTwin(quantized, torch.from_numpy(images[:2]))
    answers: dict[nn.Module, list[np.ndarray]] = {quantized.eval(): [], exact: []}
    session, written = open_session(file, threads=1), []
    with torch.no_grad():
        for k in range(0, len(images), 20):
            written.append(run_batches(session, images[k : k + 20]))
            for model, found in answers.items():
                found.append(model(torch.from_numpy(images[k : k + 20])).numpy())
    logits = np.concatenate(written)
    fake, integers = (parity(np.concatenate(found), logits) for found in answers.values())
    ordered = np.sort(logits, 1)
    margin = ordered[:, -1] - ordered[:, -2]
    differ = np.concatenate(answers[exact]).argmax(1) != logits.argmax(1)
    return {
        "samples": integers.samples, "top1": integers.agreement, "max_abs_diff": integers.max_abs_diff,
        "top1_fake_quant": fake.agreement, "max_abs_diff_fake_quant": fake.max_abs_diff,
        "accuracy": float((logits.argmax(1) == labels).mean()), "median_margin": float(np.median(margin)),
        "largest_margin_of_a_difference": float(margin[differ].max(initial=0)),
    }  # fmt: skip


def table(rows: dict[str, Any]) -> str:
    lines = [
        f"{'model':32} {'int8 x':>6} {'out':>6} {'x':>6} {'fp32':>8} {'int8':>8} {'x86':>6} {'arm':>6} {'top-1':>6} "
        f"{'2:4 bad':>7}"
    ]
    for name, row in rows.items():
        if "error" in row:
            lines.append(f"{name:32} {row['error'][:80]}")
            continue
        if "deployed" not in row:
            found = row["agreement"]
            lines.append(
                f"{name:32} agreement {found['top1']:.3f}, fake-quant {found['top1_fake_quant']:.3f}"
            )
            continue
        macs = [f"{row[rule]['mac_coverage']:6.3f}" if row[rule]["mac_coverage"] is not None else "     ?"
                for rule in ("x86", "arm")]  # fmt: skip
        agreed = f"{row['agreement']['top1']:6.3f}" if "agreement" in row else "     -"
        lines.append(
            f"{name:32} {row['speedup']:6.2f} {row['deployed']['file']:>6} {row['deployed']['speedup']:6.2f} "
            f"{row['p50_ms']['baseline']:8.2f} {row['p50_ms']['int8']:8.2f} {' '.join(macs)} {agreed} "
            f"{row['2:4']['violations']:7d}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
