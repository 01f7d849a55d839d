"""Small real things that several rooms test with: digits, two tiny nets, a trained teacher."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the nets are tiny: a second thread costs more than it gives
os.environ.setdefault("HF_HUB_OFFLINE", "1")

NETS = '''
"""Two tiny convolutional nets for 8x8 gray images."""
from torch import nn
from torch.nn import functional as F

PREPROCESS = {"height": 8, "width": 8, "channels": 1, "mean": [0.3], "std": [0.35], "interpolation": "bilinear"}


class Net(nn.Module):
    def __init__(self, width, num_classes, in_chans):
        super().__init__()
        self.stem = nn.Conv2d(in_chans, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(2 * width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.first_norm(self.first(x)) + x)
        x = F.relu(self.second_norm(self.second(x)))
        return self.head(self.pool(x).flatten(1))


def teacher(num_classes=10, in_chans=1):
    return Net(24, num_classes, in_chans)


def student(num_classes=10, in_chans=1):
    return Net(8, num_classes, in_chans)
'''


KD = {"kd": {"temperature": 3}, "ce": {"weight": 0.2}}
SMALL = {
    "name": "digits",
    "data": {"path": "builtin:digits", "max_train": 320},
    "stages": [
        {"distill": {"epochs": 1, "batch_size": 32, "lr": 1e-2, "objectives": KD, "augment": {"hflip": 0}}},
        {"prune": {"epochs": 1, "batch_size": 32, "objectives": KD, "augment": {"hflip": 0}}},
        {"quantize": {"epochs": 1, "batch_size": 32, "objectives": KD, "augment": {"hflip": 0}}},
    ],
    "export": {"choose": "as-trained"},
    "profile": {"rounds": 1, "runs": 5, "warmup": 1},
}


@pytest.fixture(scope="session")
def needs() -> Callable[..., str]:
    """``needs("sshd")``: the program's path. Without it the test is skipped, under CI it fails."""

    def find(program: str) -> str:
        # Servers are in sbin, which an ordinary user's PATH leaves out.
        found = shutil.which(program) or shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin")
        if not found:
            told = f"{program} is not installed: make system"
            (pytest.fail if os.environ.get("EDGEKD_CI") == "1" else pytest.skip)(told)
        return str(found)

    return find


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What ``--json -`` printed; nothing else may stand on stdout."""
        assert self.code == 0, self.err
        return json.loads(self.out)


@pytest.fixture(scope="session")
def edgekd() -> Callable[..., Done]:
    """The command line in this process: ``edgekd("check", file, "--json", "-")``."""

    def call(*arguments: object) -> Done:
        from edgekd.cli.app import run

        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(record=True) as raised,
        ):
            warnings.simplefilter("default")
            code = run([str(argument) for argument in arguments])
        hidden = (
            DeprecationWarning,
            PendingDeprecationWarning,
            ImportWarning,
            ResourceWarning,
        )  # as Python does
        noise = [f"{w.filename}: {w.message}" for w in raised if not issubclass(w.category, hidden)]
        assert not noise, noise
        return Done(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``nets.py``: ``torch:nets.py:teacher`` and ``torch:nets.py:student``."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "nets.py").write_text(NETS)
    return folder


@pytest.fixture(scope="session")
def digits_teacher(nets: Path) -> str:
    """The specification of a teacher trained for a few seconds on digits by the library itself."""
    from accelerate import Accelerator

    from edgekd.data.open import open_data
    from edgekd.models.resolve import resolve_model
    from edgekd.recipe import DataRecipe, InputRecipe
    from edgekd.recipe_stages import AugmentRecipe, ObjectiveRecipe, TrainRecipe
    from edgekd.train import fit
    from edgekd.training import Training

    data = open_data(DataRecipe(path="builtin:digits"), base=nets)
    spec = "torch:nets.py:teacher"
    import torch

    torch.manual_seed(0)
    loaded = resolve_model(spec, classes=10, input=InputRecipe(), base=nets, where="test", role="student")
    loaded.module.requires_grad_(True)
    recipe = TrainRecipe(
        epochs=6, batch_size=32, lr=1e-2, augment=AugmentRecipe(hflip=0.0), objectives={"ce": ObjectiveRecipe()}
    )  # fmt: skip
    training = Training(
        stage="teacher", data=data, preprocess=loaded.preprocess, seed=0, folder=nets / "training",
        accelerator=Accelerator(cpu=True),
    )  # fmt: skip
    result = fit(loaded.module, recipe, training)
    assert max(epoch.val_metric for epoch in result.history) > 0.93
    import safetensors.torch

    safetensors.torch.save_file(
        {k: v.contiguous() for k, v in loaded.module.state_dict().items()}, nets / "teacher.safetensors"
    )
    return "torch:nets.py:teacher@teacher.safetensors"


@pytest.fixture
def recipe(nets: Path, digits_teacher: str, tmp_path: Path) -> Callable[..., Path]:
    """``recipe(data={...}, student=...)``: the small recipe with some keys changed, as a file."""

    def write(**changes: Any) -> Path:
        document = copy.deepcopy(SMALL)
        document |= {
            "teacher": f"torch:{nets}/nets.py:teacher@{nets}/teacher.safetensors",
            "student": f"torch:{nets}/nets.py:student",
        }
        document |= changes
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """``photos(a=8, b=8)``: class folders of small noisy images; 0 makes an empty class folder."""

    def make(**counts: int) -> Path:
        folder = tmp_path / "photos"
        random = np.random.default_rng(0)
        for position, (name, count) in enumerate(counts.items()):
            (folder / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 100, (8, 8), dtype=np.uint8) + 10 * position
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
        return folder

    return make


@pytest.fixture(scope="session")
def saved_teacher(nets: Path, digits_teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained teacher as a folder that edgekd saved: it knows its class names, ``0`` to ``9``."""
    from edgekd.models.directory import save_model_dir
    from edgekd.models.resolve import resolve_model
    from edgekd.recipe import InputRecipe

    loaded = resolve_model(digits_teacher, classes=10, input=InputRecipe(), base=nets, where="test")
    folder = tmp_path_factory.mktemp("saved") / "teacher"
    names = [str(k) for k in range(10)]
    save_model_dir(folder, loaded.module, spec=loaded.architecture, classes=names,
                   preprocess=loaded.preprocess, folded=False)  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def onnx_file(edgekd, nets: Path, digits_teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained teacher as ONNX, written by ``edgekd export``."""
    file = tmp_path_factory.mktemp("onnx") / "teacher.onnx"
    done = edgekd("export", f"torch:{nets}/nets.py:teacher@{nets}/teacher.safetensors", "-o", file)
    assert done.code == 0, done.err
    return file


TEXTS = (
    "the oil price rose in the gulf", "wheat and corn exports fell", "the bank cut its interest rate",
    "shares of the company were sold", "a tanker left the port with crude oil", "net profit rose to two dollars",
    "the ministry said grain stocks were low", "the dollar fell against the yen in tokyo",
)  # fmt: skip


def wordpiece(texts=TEXTS) -> str:
    """A small lower-casing WordPiece tokenizer as ``tokenizer.json``: special tokens, letters, words.

    Not trained: the trainer breaks ties otherwise in every process.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = sorted({word for text in texts for word in text.split()})
    letters = [chr(code) for code in (*range(ord("a"), ord("z") + 1), *range(ord("0"), ord("9") + 1))]
    parts = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    rows = dict.fromkeys([*parts, *words])
    own = Tokenizer(models.WordPiece({token: row for row, token in enumerate(rows)}, unk_token="[UNK]"))
    own.normalizer = normalizers.BertNormalizer()
    own.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    own.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    own.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return own.to_str()


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory) -> Callable[..., Path]:
    """``text_folder("bert", classes=0, **config)``: a seeded tiny Hugging Face model with its tokenizer."""

    def make(kind: str = "bert", *, classes: int = 0, **changes: Any) -> Path:
        import torch

        from edgekd.models.hf_build import quiet_transformers

        folder = tmp_path_factory.mktemp(kind)
        size = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
                "intermediate_size": 64, "max_position_embeddings": 40, "pad_token_id": 0}  # fmt: skip
        torch.manual_seed(0)
        with quiet_transformers() as transformers:
            known = transformers.AutoConfig.for_model(kind)
            if hasattr(known, "pooler_hidden_size"):
                size["pooler_hidden_size"] = size["hidden_size"]
            if kind == "modernbert":
                size |= {
                    "bos_token_id": 2,
                    "cls_token_id": 2,
                    "eos_token_id": 3,
                    "sep_token_id": 3,
                    "local_attention": 8,
                }
            config = transformers.AutoConfig.for_model(kind, **{**size, **changes})
            if classes:
                config.num_labels = classes
                model = transformers.AutoModelForSequenceClassification.from_config(config)
            else:
                model = transformers.AutoModel.from_config(config)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(4)  # fresh weights answer every text nearly alike
            model.save_pretrained(folder)
        (folder / "tokenizer.json").write_text(wordpiece(), encoding="utf-8")
        return folder

    return make


@pytest.fixture(scope="session")
def tokenizer_json() -> str:
    """The content of a small WordPiece ``tokenizer.json``."""
    return wordpiece()


NEWS = {
    "acq": ("it agreed to acquire {n} pct of the stock", "a tender offer for {n} mln shares was extended",
            "the firm completed the purchase of its rival for {n} mln dlrs"),
    "crude": ("opec put the oil price at {n} dlrs a barrel", "crude output fell by {n} thousand barrels a day",
              "the refinery cut its posted price by {n} cts"),
    "earn": ("net profit rose to {n} mln dlrs in the quarter", "earnings per share fell to {n} cts",
             "holders approved a dividend of {n} cts a share"),
    "grain": ("wheat exports reached {n} thousand tonnes", "farmers planted {n} mln acres of maize",
              "the department put soybean stocks at {n} mln bushels"),
}  # fmt: skip


@pytest.fixture(scope="session")
def news() -> Callable[..., list[dict[str, str]]]:
    """``news(200)``: seeded rows ``text``, ``label``, ``split`` in the manner of Reuters' wire, four topics."""

    def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
        draw = np.random.default_rng(seed)
        firms, topics, found = ("champion", "northern", "delta", "pacific"), sorted(NEWS), []
        for number in range(count):
            topic = topics[number % 4]
            said = draw.choice(NEWS[topic], size=draw.integers(1, 3), replace=False)
            body = " and ".join(str(line).format(n=draw.integers(2, 999)) for line in said)
            split = "test" if number % 5 == 0 else "train"
            found.append({"text": f"{draw.choice(firms)} {body}", "label": topic, "split": split})
        return found

    return rows
