"""What a text model is measured on: valid ids of a told length."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekd.errors import ModelFileError
from edgekd.profiles import measure, profile_operators
from edgekd.profiles.estimation.loading import load_graph
from edgekd.profiles.inputs import TextLimits, random_inputs, stated_limits, text_limits
from edgekd.profiles.onnx_file import read_summary
from edgekd.profiles.session import open_session


@pytest.fixture
def write_text_model(tmp_path):
    """``write_text_model(rows=50, metadata=None, mask=False)``: an embedding's mean over open-length ids."""

    def write(*, rows=50, metadata=None, mask=False, name="text.onnx"):
        table = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
        nodes = [helper.make_node("Gather", ["table", "input_ids"], ["found"]),
                 helper.make_node("ReduceMean", ["found"], ["logits"], axes=[1], keepdims=0)]  # fmt: skip
        inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])]
        if mask:
            inputs.append(
                helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "sequence"])
            )
        graph = helper.make_graph(
            nodes, "g", inputs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
            [onnx.numpy_helper.from_array(table, "table")],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        if metadata is not None:
            helper.set_model_props(model, {"preprocess": json.dumps(metadata)})
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write


def test_ids_are_valid_unpadded_and_as_many_as_the_model_says(write_text_model):
    session = open_session(write_text_model(rows=50, metadata={"max_length": 40, "vocab_size": 50}))
    limits = text_limits(session)
    assert limits == TextLimits(50, 40)
    (ids,) = random_inputs(session.get_inputs(), text=limits).values()
    assert ids.shape == (1, 40) and ids.min() >= 1 and 30 < ids.max() < 50
    long = open_session(write_text_model(metadata={"max_length": 512, "vocab_size": 50}))
    assert text_limits(long).length == 128


def test_a_foreign_file_gets_128_ids_and_a_mask_of_ones(write_text_model):
    session = open_session(write_text_model(rows=100, mask=True))
    assert (
        text_limits(session) == TextLimits() == text_limits(open_session(write_text_model(metadata={"x": 1})))
    )
    feeds = random_inputs(session.get_inputs(), batch=2)
    assert feeds["input_ids"].shape == feeds["attention_mask"].shape == (2, 128)
    assert (feeds["attention_mask"] == 1).all() and feeds["input_ids"].max() < 100
    assert random_inputs(session.get_inputs(), shape=(1, 7))["input_ids"].shape == (1, 7)
    assert random_inputs(session.get_inputs(), shape=(7,), batch=3)["attention_mask"].shape == (3, 7)
    with pytest.raises(ModelFileError, match="another shape"):
        random_inputs(session.get_inputs(), shape=(3, 224, 224))


def test_the_report_tells_the_length(write_text_model):
    path = write_text_model(metadata={"max_length": 24, "vocab_size": 50})
    found = measure({"own": path}, rounds=1, runs=5, warmup=1).reports["own"]
    assert found.to_json()["inputs"] == {"input_ids": [1, 24]}
    chosen = measure({"own": path}, rounds=1, runs=5, warmup=1, shape=(1, 9)).reports["own"]
    assert chosen.to_json()["inputs"] == {"input_ids": [1, 9]}
    assert profile_operators(path, runs=3)


def test_an_estimate_is_of_the_length_that_is_measured(write_text_model):
    for metadata, tokens in (({"max_length": 24, "vocab_size": 50}, 24), (None, 128)):
        path = write_text_model(metadata=metadata)
        assert load_graph(path).inputs == {"input_ids": (1, tokens)}


def test_the_verb_says_what_it_measured(write_text_model, edgekd):
    path = write_text_model(metadata={"max_length": 24, "vocab_size": 50})
    few = ("--rounds", "1", "--runs", "5", "--warmup", "1")
    assert (
        "text.onnx: on 24 random tokens (--shape 1x64 chooses another length)"
        in edgekd("profile", path, *few).out
    )
    assert "on 9 random tokens\n" in edgekd("profile", path, "--shape", "1x9", *few).out


def test_runtimes_that_read_the_file_themselves_get_its_own_length(write_text_model):
    """OpenVINO and trtexec do not tell a file's metadata: they are read from the file, without the runtime."""
    path = write_text_model(rows=50, metadata={"max_length": 40, "vocab_size": 50})
    found = read_summary(path).metadata
    assert set(found) == {"preprocess"} and stated_limits(found) == TextLimits(50, 40)
    assert read_summary(write_text_model()).metadata == {}


def test_openvino_reads_as_many_ids_as_onnx_runtime(write_text_model):
    pytest.importorskip("openvino")
    path = write_text_model(rows=50, metadata={"max_length": 40, "vocab_size": 50})
    found = measure({"a": path}, runtime="openvino", rounds=1, runs=2, warmup=1)
    assert {name: list(shape) for name, shape in found.reports["a"].inputs.items()} == {"input_ids": [1, 40]}
