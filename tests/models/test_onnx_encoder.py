"""An encoder that is only there as ONNX becomes a model that can be trained."""

from __future__ import annotations

import shutil

import onnx
import pytest
import torch
from onnx import numpy_helper

from edgekd.errors import ModelError, ModelFileError
from edgekd.models.hf_build import quiet_transformers
from edgekd.models.onnx_encoder import import_onnx_encoder
from edgekd.models.resolve import resolve_model
from edgekd.recipe import InputRecipe


@pytest.fixture(scope="module")
def exported(text_folder, tmp_path_factory):
    """A tiny encoder, and what torch's exporter makes of it inside a wrapper."""
    folder = text_folder(num_hidden_layers=2)
    with quiet_transformers() as transformers:
        model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the exporter stores equal tensors, such as zero biases, once
            parameter.add_(0.05 * torch.randn_like(parameter))

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.auto_model = model

        def forward(self, input_ids, attention_mask):
            return self.auto_model(input_ids=input_ids, attention_mask=attention_mask)[0]

    file = tmp_path_factory.mktemp("encoder") / "encoder.onnx"
    ids = torch.randint(5, 150, (2, 8))
    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "tokens"} for name in names}
    torch.onnx.export(Wrapped().eval(), (ids, torch.ones_like(ids)), str(file), dynamo=False, opset_version=17,
                      input_names=names, output_names=["hidden"], dynamic_axes=axes)  # fmt: skip
    return folder, file, model


def test_the_rebuilt_encoder_answers_as_the_file(exported, tmp_path):
    folder, file, model = exported
    difference = import_onnx_encoder(file, folder / "tokenizer.json", tmp_path / "again")
    assert difference < 1e-4
    with quiet_transformers() as transformers, torch.no_grad():
        again = transformers.AutoModel.from_pretrained(tmp_path / "again", add_pooling_layer=False).eval()
        ids = torch.randint(5, 150, (2, 8))
        assert torch.allclose(again(input_ids=ids)[0], model(input_ids=ids)[0], atol=1e-4)
    assert again.config.num_attention_heads == 4 and again.config.num_hidden_layers == 2


def test_a_folder_with_an_onnx_file_and_a_tokenizer_is_a_model(exported, tmp_path, monkeypatch):
    folder, file, model = exported
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    here = tmp_path / "here"
    here.mkdir()
    shutil.copy(file, here)
    shutil.copy(folder / "tokenizer.json", here)
    for _ in range(2):  # the second time it is in the cache
        found = resolve_model(f"hf:{here}", classes=3, input=InputRecipe(max_length=8), base=tmp_path, where="x",
                              role="student")  # fmt: skip
        rebuilt = found.module.encoder.state_dict()
        assert all(torch.allclose(rebuilt[name], value) for name, value in model.state_dict().items()
                   if name in rebuilt and not name.startswith("pooler"))  # fmt: skip
        monkeypatch.setattr("edgekd.models.onnx_encoder.import_onnx_encoder", None)
    (here / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"not a Hugging Face model: it has no config\.json"):
        resolve_model(f"hf:{here}", classes=3, input=InputRecipe(), base=tmp_path, where="x", role="student")


def test_a_matrix_that_changed_places_is_noticed(exported, tmp_path):
    folder, file, _ = exported
    proto = onnx.load(str(file))
    matrices = [node for node in proto.graph.node if node.op_type == "MatMul" and "query" in node.name]
    stored = {entry.name: entry for entry in proto.graph.initializer}
    entry = stored[matrices[0].input[1]]
    wrong = numpy_helper.from_array(numpy_helper.to_array(entry).T.copy(), "twisted")
    proto.graph.initializer.append(wrong)
    for node in proto.graph.node:  # the file keeps its answer, its matrix gets a name that lies
        if node.name == matrices[0].name:
            product = node
    product.input[1] = "twisted"
    product.name = product.name.replace("query", "key")
    twisted = tmp_path / "twisted.onnx"
    onnx.save(proto, str(twisted))
    with pytest.raises(ModelFileError, match=r"answers otherwise than the file|not those of a BERT-shaped"):
        import_onnx_encoder(twisted, folder / "tokenizer.json", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_files_are_one_line(onnx_file, tmp_path):
    with pytest.raises(ModelFileError, match="is not a BERT-shaped encoder with its names"):
        import_onnx_encoder(onnx_file, tmp_path / "tokenizer.json", tmp_path / "out")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match="missing, corrupt or not an ONNX model"):
        import_onnx_encoder(tmp_path / "broken.onnx", tmp_path / "tokenizer.json", tmp_path / "out")
