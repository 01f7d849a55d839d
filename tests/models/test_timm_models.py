"""timm: names, heads and channels."""

from __future__ import annotations

import http.server
import threading
import time

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.errors import ModelError
from edgekd.models import timm_models


def saved(path, **options):
    """A seeded test_resnet with its weights in ``path``."""
    torch.manual_seed(1)
    module = timm.create_model("test_resnet", **options).eval()
    save_file(module.state_dict(), path)
    return module


def test_random_follows_data_classes_and_channels(resolve):
    model = resolve("timm:test_resnet@random", classes=7, channels=1, size=32)
    assert model.classes == 7
    assert model.weights == "random"
    assert model.preprocess.input_shape == (1, 32, 32)
    assert model.module(torch.zeros(3, 1, 32, 32)).shape == (3, 7)
    assert not model.module.training


def test_random_repeats_from_the_seed(resolve):
    first, second = (resolve("timm:test_resnet@random", size=32).module.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_unknown_classes_keep_the_own_head(resolve):
    assert resolve("timm:test_resnet@random", classes=0, size=32).classes == 1000


def test_checkpoint_equals_the_saved_module(resolve, tmp_path):
    source = saved(tmp_path / "w.safetensors", num_classes=10)
    model = resolve("timm:test_resnet@w.safetensors", size=32)
    images = torch.randn(2, 3, 32, 32)
    assert model.weights == "checkpoint"
    assert torch.equal(model.module(images), source(images))
    assert model.architecture == "timm:test_resnet"


def test_checkpoint_decides_classes_and_channels(resolve, tmp_path):
    source = saved(tmp_path / "w.safetensors", num_classes=5, in_chans=1)
    model = resolve("timm:test_resnet@w.safetensors", classes=0, size=32)
    images = torch.randn(2, 1, 32, 32)
    assert model.classes == 5
    assert model.preprocess.channels == 1
    assert torch.equal(model.module(images), source(images))


def test_teacher_with_other_classes_is_refused_with_both_counts(refused, tmp_path):
    saved(tmp_path / "w.safetensors", num_classes=5)
    message = refused("timm:test_resnet@w.safetensors", error=ModelError, size=32)
    assert "5 classes" in message
    assert "data has 10" in message


def test_student_head_is_made_anew(resolve, tmp_path):
    source = saved(tmp_path / "w.safetensors", num_classes=5)
    model = resolve("timm:test_resnet@w.safetensors", role="student", size=32)
    assert model.classes == 10
    assert torch.equal(model.module.conv1[0].weight, source.conv1[0].weight)
    assert any("made anew for 10" in note for note in model.notes)


def test_student_keeps_a_head_that_fits(resolve, tmp_path):
    source = saved(tmp_path / "w.safetensors", num_classes=10)
    model = resolve("timm:test_resnet@w.safetensors", role="student", size=32)
    assert torch.equal(model.module.fc.weight, source.fc.weight)
    assert model.notes == []


def test_checkpoint_without_head_follows_the_data(resolve, tmp_path):
    source = saved(tmp_path / "w.safetensors", num_classes=10)
    state = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("fc.")}
    save_file(state, tmp_path / "body.safetensors")
    model = resolve("timm:test_resnet@body.safetensors", classes=6, size=32)
    assert model.classes == 6
    assert any("no head" in note for note in model.notes)
    assert torch.equal(model.module.conv1[0].weight, source.conv1[0].weight)


def test_checkpoint_for_another_architecture_names_tensors_and_counts(refused, tmp_path):
    torch.manual_seed(0)
    other = timm.create_model("test_vit", num_classes=10)
    torch.save(other.state_dict(), tmp_path / "vit.pth")
    message = refused("timm:test_resnet@vit.pth", error=ModelError, size=32)
    own = timm.create_model("test_resnet", num_classes=10).state_dict()
    missing = [n for n in own if n not in other.state_dict() and not n.endswith("num_batches_tracked")]
    body = [n for n in missing if not n.startswith("fc.")]
    assert f"{len(body)} missing, first 'conv1.0.weight'" in message
    assert f"{len(other.state_dict())} unexpected, first 'cls_token' (1, 1, 64)" in message


def test_shape_mismatch_names_both_shapes(refused, tmp_path):
    state = saved(tmp_path / "w.safetensors", num_classes=10).state_dict()
    name = "layer1.0.conv1.weight"
    state[name] = torch.zeros(3, 3, 3, 3)
    save_file(state, tmp_path / "bent.safetensors")
    message = refused("timm:test_resnet@bent.safetensors", error=ModelError, size=32)
    assert f"1 of another shape, first '{name}' (3, 3, 3, 3) in the file" in message
    assert str(tuple(saved(tmp_path / "x.safetensors", num_classes=10).state_dict()[name].shape)) in message


def test_channels_against_the_checkpoint(refused, tmp_path):
    saved(tmp_path / "w.safetensors", num_classes=10)
    message = refused("timm:test_resnet@w.safetensors", error=ModelError, size=32, channels=1)
    assert "takes 3 channels" in message
    assert "input.channels: 1" in message


def test_unknown_name_gives_the_nearest(refused):
    assert "did you mean 'timm:resnet18'" in refused("timm:resnet1888", error=ModelError)


def test_unknown_tag_lists_the_known(refused):
    assert "timm:resnet18.a1_in1k" in refused("timm:resnet18.nothing", error=ModelError)


def test_hopeless_name_does_not_list_a_thousand(refused):
    assert len(refused("timm:zzzqqqxxx", error=ModelError)) < 200


def test_model_arguments(resolve):
    model = resolve("timm:test_vit?img_size=96&drop_path_rate=0.1@random")
    assert model.preprocess.input_shape == (3, 96, 96)
    assert model.architecture == "timm:test_vit?img_size=96&drop_path_rate=0.1"


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("timm:test_vit?nonsense=1@random", "nonsense"),
        ("timm:test_vit?num_classes=3@random", "follows the data"),
        ("timm:test_vit?img_size@random", "key=value"),
        ("timm:test_vit@", "nothing after '@'"),
        ("timm:", "nothing after timm:"),
        ("tim:test_vit", "did you mean 'timm:test_vit'"),
        ("test_vit", "did you mean 'timm:test_vit'"),
        ("folder/that/is/missing", "no such folder"),
    ],
)
def test_malformed_specifications(refused, spec, part):
    assert part in refused(spec, error=ModelError)


def test_unreachable_hub_is_one_line_within_seconds(refused, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    start = time.monotonic()
    message = refused("timm:test_resnet.r160_in1k", error=ModelError, classes=1000)
    assert time.monotonic() - start < 20
    assert "hub is not reachable" in message
    assert "timm:test_resnet.r160_in1k@FILE" in message
    assert "@random" in message


def test_hub_probe_gives_up_on_a_closed_port(monkeypatch):
    from edgekd.models.hub import hub_reached

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert hub_reached() is False


def test_hub_that_answers_anything_is_reached(monkeypatch):
    from edgekd.models.hub import hub_reached

    class NotFound(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with http.server.HTTPServer(("127.0.0.1", 0), NotFound) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert hub_reached() is True
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
            assert hub_reached() is False
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def pretrained(monkeypatch):
    """The hub's weights, replaced by seeded ones: what is asked of timm is what counts."""
    asked = {}

    def create(name: str, pretrained: bool, **options: object) -> nn.Module:
        asked.update(pretrained=pretrained, **options)
        return original(name, **options)

    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(timm_models, "hub_reached", lambda: True)
    return asked


def test_pretrained_teacher_keeps_its_head(pretrained, resolve, refused):
    assert resolve("timm:test_resnet", classes=1000, size=32).weights == "pretrained"
    assert pretrained == {"pretrained": True}
    message = refused("timm:test_resnet", error=ModelError, classes=10, size=32)
    assert "1000 classes, the data has 10" in message
    assert "timm:test_resnet@FILE" in message


def test_pretrained_student_gets_the_data_classes(pretrained, resolve):
    model = resolve("timm:test_resnet", role="student", size=32, channels=1)
    assert pretrained == {"pretrained": True, "num_classes": 10, "in_chans": 1}
    assert model.classes == 10
    assert any("1000 classes; made anew for 10" in note for note in model.notes)


def test_name_without_pretrained_weights(refused, monkeypatch):
    monkeypatch.setattr(timm_models, "hub_reached", lambda: pytest.fail("the hub must not be asked"))
    message = refused("timm:test_resnet_missing", error=ModelError)
    assert "no such model" in message
    names = [n for n in timm.list_models() if not timm.models.get_pretrained_cfg(n).has_weights]
    assert "no pretrained weights" in refused(f"timm:{names[0]}", error=ModelError)
