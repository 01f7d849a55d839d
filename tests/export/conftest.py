"""Two real networks, once: trained weights do not matter here, live batch norms do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from edgekd.export.write import ExportedFile, export_float, export_quantized
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.prune.mask import NMMask
from edgekd.prune.pattern import Pattern, nm_mask
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import SCHEMES

SIDE = 48


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Several test processes on two cores otherwise wait for each other's pools."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def lively_net(name: str, classes: int = 10) -> nn.Module:
    ensure_torchvision_ops()
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=classes)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
        elif isinstance(module, nn.Linear):
            module.weight.data.normal_(0, 0.3)  # logits that differ between samples
    return model.eval()


def mask_eligible(model: nn.Module) -> list[str]:
    """2:4 masks on every layer that can take them."""
    names = []
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.weight.shape[1] % 4 == 0:
            weight = layer.weight.detach()
            parametrize.register_parametrization(
                layer, "weight", NMMask(nm_mask(weight, weight.abs(), Pattern(2, 4)))
            )
            names.append(name)
    return names


@dataclass
class Case:
    """A quantized net and its files. ``reference`` are the torch model's logits for ``inputs``."""

    name: str
    model: QuantizedModel
    masked: list[str]
    inputs: np.ndarray
    reference: np.ndarray
    float_file: ExportedFile
    file: ExportedFile


def make_case(name: str, folder: Path, *, scheme: str = "u8s8", opset: int = 17) -> Case:
    model = lively_net(name)
    masked = mask_eligible(model)
    torch.manual_seed(1)
    x = torch.randn(64, 3, SIDE, SIDE)
    float_file = export_float(model, x, folder / f"{name}-fp32.onnx", opset=opset)
    quantized = prepare_qat(model, x[:2], SCHEMES[scheme])
    quantized.calibrate(x[:32].split(16))
    quantized.set_phase("frozen")
    quantized.eval()
    file = export_quantized(quantized, x, folder / f"{name}-{scheme}.onnx", opset=opset)
    with torch.no_grad():
        reference = quantized(x).numpy()
    return Case(name, quantized, masked, x.numpy(), reference, float_file, file)


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case("test_resnet", tmp_path_factory.mktemp("resnet"))


@pytest.fixture(scope="session")
def efficientnet(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Depthwise convolutions, SiLU, squeeze-excite."""
    return make_case("test_efficientnet", tmp_path_factory.mktemp("efficientnet"))


@pytest.fixture(params=["test_resnet", "test_efficientnet"])
def case(request: pytest.FixtureRequest) -> Case:
    fixture = {"test_resnet": "resnet", "test_efficientnet": "efficientnet"}[request.param]
    found: Case = request.getfixturevalue(fixture)
    return found
