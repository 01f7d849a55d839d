"""The written file: complete, checked, small, and nothing in it that the runtime does not need."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekd.artifact import sha256_file
from edgekd.errors import ExportError, OutputError
from edgekd.export import finish
from edgekd.export.trace import opset_of
from edgekd.export.write import export_float, export_quantized
from edgekd.profiles.session import open_session, run_batches
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import SCHEMES


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)
        self.adapter = nn.Linear(8, 16)  # a distillation head: never part of the answer

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        if self.training:
            return self.head(x) + self.adapter(x).sum()
        return self.head(x)


def tiny_quantized(scheme: str = "u8s8", **options: Any) -> Any:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 12, 12)
    model = prepare_qat(Tiny().eval(), x, SCHEMES[scheme], **options)
    model.calibrate([x])
    model.set_phase("frozen")
    return model.eval(), x


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def test_report_of_the_file_is_true(case: Any) -> None:
    for file in (case.file, case.float_file):
        assert file.sha256 == sha256_file(file.path) and file.size_bytes == file.path.stat().st_size
        assert 0 < file.compressed_bytes < file.size_bytes
        assert file.opset == 17 == opset_of(onnx.load(str(file.path)))
        json.dumps(file.to_json())


def test_the_graph_holds_what_the_runtime_needs_and_no_more(case: Any) -> None:
    for file in (case.file, case.float_file):
        proto = onnx.load(str(file.path))
        assert [v.name for v in proto.graph.input] == ["input"]
        assert [v.name for v in proto.graph.output] == ["logits"]
        read = {name for node in proto.graph.node for name in node.input} | {"logits"}
        assert all(tensor.name in read for tensor in proto.graph.initializer)
        assert {node.domain for node in proto.graph.node} == {""}
        kinds = {node.op_type for node in proto.graph.node}
        assert not kinds & {"Constant", "Identity", "BatchNormalization", "Dropout"}
        assert not any(node.doc_string for node in proto.graph.node)
        assert proto.producer_name == "edgekd" and proto.ir_version <= 10, "ONNX Runtime 1.20 reads up to 10"
        names = [node.name for node in proto.graph.node]
        assert len(set(names)) == len(names)


def test_integers_are_a_quarter_and_the_graph_costs_little(case: Any) -> None:
    # Scales and biases take some 13 bytes a channel; in a net of 100,000 weights that is much.
    assert case.file.size_bytes < (0.30 if case.name == "test_resnet" else 0.36) * case.float_file.size_bytes


def test_scales_and_zero_points_are_shared(resnet: Any) -> None:
    proto = onnx.load(str(resnet.file.path))
    small = [t for t in proto.graph.initializer if np.prod(t.dims, dtype=int) == 1]
    values = [(t.data_type, numpy_helper.to_array(t).tobytes(), tuple(t.dims)) for t in small]
    assert len(set(values)) == len(values)


def test_names_are_those_of_the_layers(resnet: Any) -> None:
    proto = onnx.load(str(resnet.file.path))
    names = {t.name for t in proto.graph.initializer}
    assert {"layer1.0.conv1.weight_int8", "layer1.0.conv1.bias_int32", "fc.weight_int8"} <= names
    assert "layer1.0.conv1/Conv" in {node.name for node in proto.graph.node}
    float_names = {t.name for t in onnx.load(str(resnet.float_file.path)).graph.initializer}
    assert {"layer1.0.conv1.weight", "layer1.0.conv1.bias", "fc.weight"} <= float_names


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_the_batch_is_dynamic(case: Any, batch: int) -> None:
    for file in (case.file, case.float_file):
        session = open_session(file.path)
        assert session.run(None, {"input": case.inputs[:batch]})[0].shape == (batch, 10)


def test_the_float_file_answers_as_the_module(resnet: Any) -> None:
    model = resnet.model
    model.set_phase("off")
    with torch.no_grad():
        expected = model(torch.from_numpy(resnet.inputs)).numpy()
    model.set_phase("frozen")
    written = run_batches(open_session(resnet.float_file.path), resnet.inputs)
    np.testing.assert_allclose(written, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("opset", [13, 14, 15, 16, 17])
def test_the_opset_asked_for_is_the_opset_in_the_file(opset: int, tmp_path: Path) -> None:
    model, x = tiny_quantized("s8s8")
    for file in (
        export_quantized(model, x, tmp_path / "q.onnx", opset=opset),
        export_float(model.model, x, tmp_path / "f.onnx", opset=opset),
    ):
        assert file.opset == opset == opset_of(onnx.load(str(file.path)))
        assert open_session(file.path).run(None, {"input": x.numpy()})[0].shape == (8, 4)


def test_export_does_not_touch_the_model(tmp_path: Path) -> None:
    """A deep copy shares its generated classes with the original: baking the copy must not break it."""
    model, x = tiny_quantized()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        before = model(x)
        export_quantized(model, x, tmp_path / "q.onnx", opset=17)
        export_float(model.model, x, tmp_path / "f.onnx", opset=17)
        assert torch.equal(model(x), before)
    assert parametrize.is_parametrized(model.model.conv, "weight")
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_a_train_only_head_is_not_in_the_file(tmp_path: Path) -> None:
    file = export_float(Tiny().train(), torch.zeros(1, 3, 12, 12), tmp_path / "f.onnx", opset=17)
    proto = onnx.load(str(file.path))
    assert not any("adapter" in tensor.name for tensor in proto.graph.initializer)
    assert sum(node.op_type == "Gemm" for node in proto.graph.node) == 1


def test_metadata_travels_in_the_file(tmp_path: Path) -> None:
    model, x = tiny_quantized()
    file = export_quantized(model, x, tmp_path / "q.onnx", opset=17, metadata={"classes": '["a"]'})
    found = {entry.key: entry.value for entry in onnx.load(str(file.path)).metadata_props}
    assert found["classes"] == '["a"]' and found["quantization"] == "u8s8" and found["edgekd"]


def test_a_spatial_mean_becomes_the_pooling_that_has_an_integer_kernel(tmp_path: Path) -> None:
    model, x = tiny_quantized()
    file = export_quantized(model, x, tmp_path / "q.onnx", opset=17)
    assert operators(file.path)["GlobalAveragePool"] == 1 and operators(file.path)["ReduceMean"] == 0


def test_a_batch_norm_without_a_layer_becomes_a_scale_and_a_shift(tmp_path: Path) -> None:
    class Lone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.norm(x)))

    model = Lone()
    model.norm.running_mean.normal_()
    x = torch.randn(5, 6)
    file = export_float(model, x, tmp_path / "f.onnx", opset=17)
    assert "1 batch norms" in file.notes[0]
    with torch.no_grad():
        written = open_session(file.path).run(None, {"input": x.numpy()})[0]
        np.testing.assert_allclose(written, model.eval()(x).numpy(), rtol=1e-4, atol=1e-5)


def test_relu_disappears_into_the_quantization_after_it(resnet: Any) -> None:
    kinds = operators(resnet.file.path)
    assert kinds["Relu"] == kinds["Clip"] == 0


def test_relu6_disappears_after_learned_ranges_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 12, 12)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 4, 3), nn.Flatten())
    model = prepare_qat(net.eval(), x, SCHEMES["u8s8"], ranges="learned")
    model.calibrate([x * 9])
    with torch.no_grad():
        for quantizer in model.activation_quantizers():
            quantizer.high.mul_(1.3)  # a gradient step may push a range past the clip
            quantizer.low.sub_(0.2)
    model.set_phase("frozen")
    file = export_quantized(model.eval(), x, tmp_path / "q.onnx", opset=17)
    assert operators(file.path)["Clip"] == 0
    with torch.no_grad():
        np.testing.assert_allclose(
            open_session(file.path).run(None, {"input": x.numpy()})[0], model(x).numpy(), atol=0.05
        )


def test_tensorrt_file_is_symmetric_with_float_biases_and_quantized_adds(tmp_path: Path) -> None:
    class Residual(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.norm(self.conv(x)))
            return self.head(torch.relu(x + self.second(x)).mean((2, 3)))

    torch.manual_seed(0)
    x = torch.randn(8, 3, 12, 12)
    model = prepare_qat(Residual().eval(), x, SCHEMES["s8s8"])
    model.calibrate([x])
    file = export_quantized(model.eval(), x, tmp_path / "q.onnx", opset=13)
    proto = onnx.load(str(file.path))
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    producers = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8 and not zero.any()
        if node.op_type == "Add":
            assert [producers[name].op_type for name in node.input] == ["DequantizeLinear"] * 2
        if node.op_type in ("Conv", "Gemm"):
            assert constants[node.input[2]].dtype == np.float32
    assert sum(node.op_type == "Add" for node in proto.graph.node) == 1


def test_excluded_layers_are_float_in_the_file_and_noted(tmp_path: Path) -> None:
    model, x = tiny_quantized(exclude=["conv"])
    file = export_quantized(model, x, tmp_path / "q.onnx", opset=17)
    names = {t.name for t in onnx.load(str(file.path)).graph.initializer}
    assert "conv.weight" in names and "head.weight_int8" in names
    assert file.notes == ("conv stays float: excluded by the recipe: conv",)


@pytest.mark.parametrize("scheme", ["u8s8", "u8s8-reduce-range"])
def test_integers_fill_the_range_of_the_scheme(scheme: str, tmp_path: Path) -> None:
    model, x = tiny_quantized(scheme)
    file = export_quantized(model, x, tmp_path / "q.onnx", opset=17)
    weights = [
        numpy_helper.to_array(t)
        for t in onnx.load(str(file.path)).graph.initializer
        if t.name.endswith("_int8")
    ]
    assert len(weights) == 2
    for weight in weights:
        largest = np.abs(weight.astype(int)).reshape(len(weight), -1).max(1)
        assert (largest == SCHEMES[scheme].weight_max).all()


def test_a_module_that_cannot_be_exported_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.svd(x.flatten(1))[1]

    with pytest.raises(ExportError, match="Odd: cannot be exported to ONNX opset 17") as caught:
        export_float(Odd(), torch.zeros(1, 3, 4, 4), tmp_path / "f.onnx", opset=17)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(2, -1)[:, :4] + torch.zeros(2, 4)

    with pytest.raises(ExportError, match="the batch is fixed at 2"):
        export_float(Fixed(), torch.zeros(1, 3, 4, 4), tmp_path / "f.onnx", opset=17)
    assert not list(tmp_path.iterdir())


def test_a_model_over_the_limit_of_one_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finish, "_MAX_BYTES", 500)
    with pytest.raises(ExportError, match="does not fit into one ONNX file"):
        export_float(Tiny(), torch.zeros(1, 3, 12, 12), tmp_path / "f.onnx", opset=17)


def test_another_opset_than_asked_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish, "opset_of", lambda proto: 18)
    with pytest.raises(ExportError, match="another opset than asked for"):
        export_float(Tiny(), torch.zeros(1, 3, 12, 12), tmp_path / "f.onnx", opset=17)


def test_a_path_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        export_float(Tiny(), torch.zeros(1, 3, 12, 12), tmp_path / "file" / "f.onnx", opset=17)


class TwoAttentions(nn.Module):
    """Both in the root's own ``forward``, as people write them: two splits with three outputs each in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.first, self.second, self.head = nn.Linear(32, 96), nn.Linear(32, 96), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for layer in (self.first, self.second):
            query, key, value = layer(x).unflatten(2, (3, 2, 16)).permute(2, 0, 3, 1, 4).unbind(0)
            found = nn.functional.scaled_dot_product_attention(query, key, value)
            x = x + found.transpose(1, 2).flatten(2)
        return self.head(x.mean(1))


def test_two_nodes_of_several_outputs_in_one_module_have_names_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = TwoAttentions().eval(), torch.randn(2, 3, 16, 16)
    export_float(net, x, tmp_path / "m.onnx", opset=20)
    answer = run_batches(open_session(tmp_path / "m.onnx"), x.numpy(), batch=2)
    with torch.no_grad():
        np.testing.assert_allclose(answer, net(x).numpy(), atol=1e-5)
