"""An ONNX file as a teacher."""

from __future__ import annotations

import copy
import pickle
import warnings

import onnx
import pytest
import torch
from torch import nn

from edgekd.errors import ModelError, ModelFileError
from edgekd.models.black_box import BlackBox
from edgekd.models.cost import measure_cost


class Tiny(nn.Module):
    def __init__(self, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.norm(self.conv(images))).mean((2, 3)))


def export(module, path, example, batch="dynamic"):
    axes = {"x": {0: "batch"}} if batch == "dynamic" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (example,), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes)


@pytest.fixture
def tiny(tmp_path):
    torch.manual_seed(0)
    module = Tiny().eval()
    export(module, tmp_path / "t.onnx", torch.zeros(1, 3, 16, 16))
    return module


def test_answers_like_the_torch_model(tiny, resolve):
    model = resolve("onnx:t.onnx")
    images = torch.randn(7, 3, 16, 16)
    assert model.weights == "onnx"
    assert model.classes == 10
    assert model.preprocess.input_shape == (3, 16, 16)
    assert model.architecture == ""
    answer = model.module(images.requires_grad_())
    torch.testing.assert_close(answer, tiny(images), atol=1e-4, rtol=0, check_device=True)
    assert not answer.requires_grad
    assert list(model.module.parameters()) == []


@pytest.mark.parametrize("images", [1, 4, 6])
def test_fixed_batch_is_chunked_and_padded(tmp_path, tiny, images):
    export(tiny, tmp_path / "four.onnx", torch.zeros(4, 3, 16, 16), batch="fixed")
    box = BlackBox(tmp_path / "four.onnx", where="teacher", threads=1)
    batch = torch.randn(images, 3, 16, 16)
    torch.testing.assert_close(box(batch), tiny(batch), atol=1e-4, rtol=0)


def test_can_be_copied_and_sent_to_a_process(tmp_path, tiny):
    box = BlackBox(tmp_path / "t.onnx", where="teacher")
    images = torch.randn(2, 3, 16, 16)
    for twin in (copy.deepcopy(box), pickle.loads(pickle.dumps(box))):
        assert torch.equal(twin(images), box(images))


def test_normalisation_is_a_stated_assumption(tiny, resolve):
    assert any("set input.mean and input.std" in note for note in resolve("onnx:t.onnx").notes)
    assert resolve("onnx:t.onnx", mean=[0.5], std=[0.5]).notes == []


def test_gray_input(tmp_path, resolve):
    torch.manual_seed(0)
    export(Tiny(channels=1).eval(), tmp_path / "gray.onnx", torch.zeros(1, 1, 16, 16))
    own = resolve("onnx:gray.onnx").preprocess
    assert own.channels == 1
    assert own.mean == pytest.approx((0.449,))


def test_a_file_that_the_runtime_warns_about_loads_quietly(tmp_path, tiny, resolve, capfd):
    model = onnx.load(tmp_path / "t.onnx")
    for tensor in model.graph.initializer:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    onnx.save(model, tmp_path / "old.onnx")
    assert resolve("onnx:old.onnx").classes == 10
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_truncated_file(tmp_path, tiny, refused, capfd, keep):
    whole = (tmp_path / "t.onnx").read_bytes()
    (tmp_path / "t.onnx").write_bytes(whole[: int(len(whole) * keep) if keep < 1 else keep])
    assert "corrupt, truncated" in refused("onnx:t.onnx", error=ModelFileError)
    assert capfd.readouterr().err == ""


def test_text_and_missing_files(tmp_path, refused):
    (tmp_path / "t.onnx").write_text("no model")
    assert "corrupt" in refused("onnx:t.onnx", error=ModelFileError)
    assert "no such ONNX file" in refused("onnx:missing.onnx", error=ModelFileError)


def test_other_size_and_classes_are_refused(tiny, refused):
    message = refused("onnx:t.onnx", error=ModelError, size=32)
    assert "takes 16x16 pixels; got 'input.size: 32'" in message
    assert "knows 10 classes, the data has 4" in refused("onnx:t.onnx", error=ModelError, classes=4)
    assert "takes 3 channels" in refused("onnx:t.onnx", error=ModelError, channels=1)


def test_student_is_refused(tiny, refused):
    assert "no weights to train" in refused("onnx:t.onnx", error=ModelError, role="student")


@pytest.mark.parametrize(
    ("example", "part"),
    [
        (torch.zeros(2, 48), "another input shape"),
        (torch.zeros(2, 5, 4, 4), "another input shape"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.float64), "must take float32; got 'tensor(double)'"),
    ],
)
def test_unusable_inputs(tmp_path, refused, example, part):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(example[0].numel(), 10)).to(example.dtype)
    export(flat, tmp_path / "odd.onnx", example)
    assert part in refused("onnx:odd.onnx", error=ModelFileError)


def test_cost_is_counted_from_the_graph(tmp_path, resolve):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=8, bias=False),
        nn.ConvTranspose2d(8, 2, 2, stride=2, bias=False),
        nn.Flatten(),
        nn.Linear(2 * 14 * 14, 10),
    ).eval()
    with torch.no_grad():
        net[5].weight[0] = 0
    export(net, tmp_path / "c.onnx", torch.zeros(1, 3, 16, 16))
    found = measure_cost(resolve("onnx:c.onnx").module, (3, 16, 16))
    assert found == measure_cost(net, (3, 16, 16))
    assert found.nonzero_params == found.params - 2 * 14 * 14


def test_cost_of_attention_is_counted_from_the_graph(tmp_path, resolve):
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(3, 12)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            query, key, value = self.qkv(images.flatten(2).transpose(1, 2)).split(4, dim=2)
            return (torch.softmax(query @ key.transpose(1, 2), 2) @ value).mean(1)

    net = Attention().eval()
    export(net, tmp_path / "a.onnx", torch.zeros(1, 3, 6, 6))
    found = measure_cost(resolve("onnx:a.onnx", classes=4).module, (3, 6, 6))
    assert found == measure_cost(net, (3, 6, 6))
    assert found.macs == 36 * 3 * 12 + 2 * 36 * 36 * 4
