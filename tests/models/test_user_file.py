"""The user's own Python file as a model."""

from __future__ import annotations

import textwrap

import pytest
import torch

from edgekd.errors import ModelError

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=10, in_chans=3):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, 8, 3)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))
"""


@pytest.fixture
def write(tmp_path):
    def call(extra: str = "", name: str = "net.py", base: str = NET) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(base + textwrap.dedent(extra))

    return call


def test_factory_gets_classes_and_channels(write, resolve, tmp_path):
    write()
    model = resolve("torch:net.py:Net", classes=4, channels=1, size=16)
    assert model.classes == 4
    assert model.preprocess.input_shape == (1, 16, 16)
    assert model.architecture == f"torch:{tmp_path}/net.py:Net"
    assert any("cannot tell whether they are trained" in note for note in model.notes)
    assert model.weights == "built"


def test_factory_without_parameters_does_it_all(write, resolve, refused):
    write("def make():\n    return Net(6).half()\n")
    model = resolve("torch:net.py:make", classes=6, size=16)
    assert model.module.fc.weight.dtype == torch.float32
    message = refused("torch:net.py:make", error=ModelError, classes=9, size=16, role="student")
    assert "knows 6 classes, the data has 9" in message
    assert "num_classes" in message


def test_checkpoint_decides_classes_and_channels(write, resolve, tmp_path):
    write()
    source = resolve("torch:net.py:Net", classes=4, channels=1, size=16).module
    wrapped = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": wrapped}, tmp_path / "w.pth")
    model = resolve("torch:net.py:Net@w.pth", classes=0, size=16)
    assert model.weights == "checkpoint"
    assert model.classes == 4
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(model.module(images), source.eval()(images))


def test_checkpoint_student_head(write, resolve, tmp_path):
    write()
    source = resolve("torch:net.py:Net", classes=4, size=16).module
    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = resolve("torch:net.py:Net@w.pth", role="student", size=16)
    assert model.classes == 10
    assert torch.equal(model.module.conv.weight, source.conv.weight)


def test_checkpoint_that_does_not_fit(write, refused, tmp_path):
    write()
    torch.save({"a.weight": torch.zeros(2, 2), "b.weight": torch.zeros(2)}, tmp_path / "w.pth")
    message = refused("torch:net.py:Net@w.pth", error=ModelError, size=16)
    assert "2 missing, first 'conv.weight' (8, 3, 3, 3)" in message
    assert "2 unexpected, first 'a.weight' (2, 2)" in message


def test_declared_preprocessing(write, resolve):
    write("PREPROCESS = dict(height=20, width=24, mean=(0.5,), std=(0.25,), crop_mode='squash')\n")
    own = resolve("torch:net.py:Net").preprocess
    assert (own.height, own.width, own.mean, own.crop_mode) == (20, 24, (0.5, 0.5, 0.5), "squash")
    assert resolve("torch:net.py:Net", size=16).preprocess.height == 16


def test_preprocessing_on_the_module(write, resolve):
    write(
        """
        def make(num_classes):
            net = Net(num_classes)
            net.preprocess = dict(height=12, width=12)
            return net

        def timm_like(num_classes):
            net = Net(num_classes)
            net.pretrained_cfg = dict(input_size=(3, 18, 18), mean=(0.1, 0.2, 0.3), crop_pct=0.9)
            return net
        """
    )
    assert resolve("torch:net.py:make").preprocess.height == 12
    declared = resolve("torch:net.py:timm_like").preprocess
    assert (declared.height, declared.mean, declared.crop_pct) == (18, (0.1, 0.2, 0.3), 0.9)


@pytest.mark.parametrize(
    ("declared", "part"),
    [
        ("dict(hight=20)", "preprocess.hight"),
        ("dict(height=-1)", "preprocess.height"),
        ("dict(channels=1)", "says 1 channels, the model takes 3"),
    ],
)
def test_wrong_declared_preprocessing(write, refused, declared, part):
    write(f"PREPROCESS = {declared}\n")
    assert part in refused("torch:net.py:Net", error=ModelError)


def test_no_preprocessing_is_noted(write, resolve):
    write()
    assert any("no PREPROCESS" in note for note in resolve("torch:net.py:Net").notes)


@pytest.mark.parametrize(
    ("code", "spot", "what"),
    [
        ("import nothing_of_this_name\n", "net.py:1", "ModuleNotFoundError"),
        ("x = 1\ndef make(:\n", "net.py:2", "SyntaxError"),
        ("raise SystemExit('bye')\n", "net.py:1", "SystemExit: bye"),
        ("def make():\n    return 1 / 0\n", "net.py:2", "ZeroDivisionError"),
        ("def make():\n    raise ValueError('first\\nsecond')\n", "net.py:2", "ValueError: first"),
    ],
)
def test_errors_in_the_file_tell_the_line(write, refused, tmp_path, code, spot, what):
    write(base=code)
    message = refused("torch:net.py:make", error=ModelError)
    assert f"{tmp_path}/{spot}" in message
    assert what in message


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("torch:net.py:Met", "did you mean 'Net'"),
        ("torch:missing.py:Net", "no such Python file"),
        ("torch:net.py", "torch:FILE.py:FACTORY"),
        ("torch:net.py:Net@", "torch:FILE.py:FACTORY"),
        ("torch:net.py:Net()", "torch:FILE.py:FACTORY"),
        ("torch:net.py:number", "must be a function or class"),
        ("torch:net.py:instance", "must be a function or class"),
        ("torch:net.py:wrong", "must return a torch.nn.Module; got 'int'"),
        ("torch:net.py:needy", "needs arguments that edgekd does not know; got 'depth, width'"),
        ("torch:net.py:pair", "one tensor of logits; got 'tuple'"),
        ("torch:net.py:maps", "is not logits; got (2, 8, 14, 14)"),
        ("torch:net.py:nan", "NaN or infinity"),
        ("torch:net.py:Net@missing.pth", "no such checkpoint"),
    ],
)
def test_malformed(write, refused, spec, part):
    write(
        """
        number = 3
        instance = Net()
        def wrong(): return 3
        def needy(depth, num_classes, width): return Net()
        class pair(Net):
            def forward(self, x): return super().forward(x), x
        class maps(Net):
            def forward(self, x): return self.conv(x)
        class nan(Net):
            def forward(self, x): return super().forward(x) / 0 * 0
        """
    )
    assert part in refused(spec, error=ModelError, size=16)


def test_files_beside_it_can_be_imported_and_do_not_clash(write, resolve):
    for folder, classes in (("first", 3), ("second", 5)):
        write(name=f"{folder}/layers.py", extra=f"CLASSES = {classes}\n")
        write(
            name=f"{folder}/net.py", base="from layers import CLASSES, Net\ndef make(): return Net(CLASSES)\n"
        )
    assert resolve("torch:first/net.py:make", classes=3, size=16).classes == 3
    assert resolve("torch:second/net.py:make", classes=5, size=16).classes == 5


def test_dataclasses_in_the_file(write, resolve):
    write(
        """
        from __future__ import annotations
        from dataclasses import dataclass
        from torch import nn

        @dataclass
        class Config:
            width: int = 2

        def make():
            return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, Config().width))
        """,
        base="",
    )
    assert resolve("torch:net.py:make", classes=2, size=4).classes == 2


def test_space_to_depth_stem_tells_its_channels(resolve, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(num_classes=4, in_chans=3):\n"
        "    stem = nn.PixelUnshuffle(4), nn.Conv2d(16 * in_chans, 8, 3)\n"
        "    return nn.Sequential(*stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))\n"
    )
    gray = resolve("torch:net.py:make", classes=4, channels=1, size=16)
    torch.save(gray.module.state_dict(), tmp_path / "gray.pth")
    again = resolve("torch:net.py:make@gray.pth", classes=4, size=16)
    assert again.preprocess.channels == 1
    assert torch.equal(again.module[1].weight, gray.module[1].weight)


@pytest.mark.parametrize("old", ["weight_norm", "spectral_norm"])
def test_the_old_norms_are_refused_before_anything_copies_them(write, resolve, refused, old):
    write(f"""
        def make():
            net = Net(4)
            torch.nn.utils.{old}(net.conv)
            return net

        def new():
            net = Net(4)
            torch.nn.utils.parametrizations.{old}(net.conv)
            return net
    """)
    message = refused("torch:net.py:make", error=ModelError, classes=4, size=16)
    assert "conv" in message and f"parametrizations.{old}" in message
    resolve("torch:net.py:new", classes=4, size=16)
