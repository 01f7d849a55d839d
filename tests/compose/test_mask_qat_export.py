"""Mask, then QAT with dropout and drop path, then export: the pattern and the function reach the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import parametrize

from edgekd.export.coverage import check_coverage
from edgekd.export.parity import parity
from edgekd.export.sparsity import check_sparsity
from edgekd.export.write import export_quantized
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.profiles.session import open_session, run_batches
from edgekd.prune.mask import NMMask
from edgekd.prune.pattern import Pattern, nm_mask
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import SCHEMES


@pytest.mark.parametrize("ranges", ["moving-average", "learned"])
def test_a_masked_net_trained_with_stochastic_depth_is_the_net_in_the_file(
    ranges: str, tmp_path: Path
) -> None:
    ensure_torchvision_ops()
    import timm

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=4, drop_path_rate=0.1, drop_rate=0.1)
    masked = []
    for name, layer in model.named_modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)) and layer.weight.shape[1] % 4 == 0:
            weight = layer.weight.detach()
            mask = NMMask(nm_mask(weight, weight.abs(), Pattern(2, 4)))
            parametrize.register_parametrization(layer, "weight", mask)
            masked.append(name)
    target = torch.arange(64) % 4
    x = torch.randn(64, 3, 40, 40) * 0.3
    x[:, 0, :20] += (target // 2).float()[:, None, None] * 2
    x[:, 1, :, :20] += (target % 2).float()[:, None, None] * 2
    quantized = prepare_qat(model.eval(), x[:2], SCHEMES["u8s8"], ranges=ranges)  # type: ignore[arg-type]
    quantized.calibrate(x.split(16))
    optimizer = torch.optim.AdamW(quantized.parameters(), lr=4e-3, weight_decay=0.05)
    quantized.train()
    losses = []
    for step in range(24):
        if step == 18:
            quantized.set_phase("frozen")
        pick = torch.randperm(64)[:32]
        optimizer.zero_grad()
        loss = F.cross_entropy(quantized(x[pick]), target[pick])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    quantized.eval()
    with torch.no_grad():
        reference = quantized(x).numpy()
    file = export_quantized(quantized, x, tmp_path / "q.onnx", opset=17)
    report = check_sparsity(file.path, "2:4", layers=masked)
    assert report.violations == 0 and report.integer_layers == report.layers == len(masked)
    for rule in ("x86", "arm"):
        assert check_coverage(file.path, rule).coverage == 1.0  # type: ignore[arg-type]
    found = parity(reference, run_batches(open_session(file.path), x.numpy()))
    assert found.agreement >= 0.98 and found.max_abs_diff < 0.05 * np.ptp(reference)
    torch.set_num_threads(threads)
