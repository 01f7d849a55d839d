"""``edgekd profile`` with several batches and callers, the same file twice, and what the warnings belong to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd.profiles.throughput import at_each_load

QUICK = ("--rounds", 2, "--runs", 3, "--warmup", 1)


def test_only_what_differs_is_in_the_label():
    one, two = {"a": Path("a")}, {"a": Path("a"), "b": Path("b")}
    assert list(at_each_load(two, (8,), (2,))) == ["a", "b"]
    assert list(at_each_load(one, (1, 8), (2,))) == ["a, batch 1", "a, batch 8"]
    assert list(at_each_load(one, (1, 1), (1, 2))) == ["a, streams 1", "a, streams 2"]
    found = at_each_load(two, (1, 8), (1, 2))["b, batch 8, streams 2"]
    assert (found.model, found.path, found.batch, found.streams) == ("b", Path("b"), 8, 2)


def test_every_pair_of_batch_and_streams_is_measured(edgekd, onnx_file):
    loads = ("--batch", 1, "--batch", 4, "--streams", 1, "--streams", 2)
    done = edgekd("profile", onnx_file, *QUICK, *loads, "--json", "-")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    pairs = {(r["batch"], r["streams"]) for r in found["reports"].values()}
    assert pairs == {(1, 1), (1, 2), (4, 1), (4, 2)}
    assert all(r["items_per_second"] > 0 for r in found["reports"].values())
    assert found["speedup_over_first"] == {}  # latencies of other loads are not compared
    table = edgekd("profile", onnx_file, *QUICK, "--streams", 2).out
    assert "items/s" in table and "items/s" not in edgekd("profile", onnx_file, *QUICK).out


def test_a_file_given_twice_is_measured_twice(edgekd, onnx_file):
    done = edgekd("profile", onnx_file, onnx_file, *QUICK, "--json", "-")
    found = json.loads(done.out)
    again = f"{onnx_file.name} (2)"
    assert list(found["reports"]) == [onnx_file.name, again]
    assert found["speedup_over_first"][again]["value"] > 0


def test_a_warning_says_whose_it_is(edgekd, onnx_file):
    few = ("--rounds", 1, "--runs", 3, "--warmup", 0)  # too few for a p99: always warned of
    said = [line for line in edgekd("profile", onnx_file, *few).err.splitlines() if "p99" in line]
    assert said and all(line.startswith("warning: only ") for line in said)
    said = [line for line in edgekd("profile", onnx_file, onnx_file, *few).err.splitlines() if "p99" in line]
    assert [line.split(": ")[1] for line in said] == [onnx_file.name, f"{onnx_file.name} (2)"]


def test_batches_are_estimated_side_by_side(edgekd, onnx_file):
    at = ("--device", "raspberry-pi-4b", "--batch", 1, "--batch", 8)
    one, eight = json.loads(edgekd("profile", onnx_file, *at, "--json", "-").out)["reports"]
    assert (one["batch"], eight["batch"]) == (1, 8) and eight["p50_ms"] > one["p50_ms"]
    assert "items/s" in edgekd("profile", onnx_file, *at).out


def test_an_estimate_says_which_basis_is_whose(edgekd, onnx_file):
    boards = ("--device", "raspberry-pi-4b", "--device", "jetson-orin-nano")
    lines = edgekd("profile", onnx_file, *boards).out.splitlines()
    for board in boards[1::2]:
        assert sum(line.startswith(f"estimated ({onnx_file.name} on {board}): ") for line in lines) == 1
    one = edgekd("profile", onnx_file, *boards[:2]).out.splitlines()
    assert sum(line.startswith("estimated: ") for line in one) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--raw"], ("--raw", "--json")),
        (["--target", 5], ("target", "5", "below 1")),
        (["--runtime", "tensorrt"], ("--runtime", "'tensorrt'", "--method estimate", "trtexec")),
        (["--runtime", "ncnn"], ("'ncnn'", "--method estimate")),
        (["--device", "raspberry-pi-4b", "--streams", 1, "--streams", 2], ("--streams", "got 2")),
        (["--batch", 1, "--batch", 0], ("batch", "got 0")),
        (["--method", "guess"], ("'guess' is not one of 'measure', 'emulate', 'estimate'",)),
    ],
)  # fmt: skip
def test_options_that_do_nothing_are_refused(refused, onnx_file, arguments, says):
    assert "Value error" not in refused("profile", onnx_file, *arguments, says=says)


def test_a_folder_is_no_model(refused, tmp_path):
    refused("profile", tmp_path, says=("is a folder", ".onnx (onnxruntime)"))


@pytest.mark.parametrize("verb", ["profile", "check", "devices"])
def test_where_the_json_goes_is_tried_first(refused, onnx_file, tmp_path, verb):
    arguments = ["list"] if verb == "devices" else [onnx_file]
    refused(verb, *arguments, "--json", tmp_path, says=("is a folder, not a file", "--json"))
    (tmp_path / "file").write_text("")
    refused(verb, *arguments, "--json", tmp_path / "file" / "x.json", says=("cannot be written", "--json"))


def test_export_writes_what_a_runtime_takes(refused, tmp_path):
    model = "timm:resnet18@random"
    refused("export", model, "-o", tmp_path / "x.bin", says=("x.bin", "'.bin'", ".onnx", ".tflite"))
    refused("export", model, "-o", tmp_path, says=("'.", ".onnx") if tmp_path.suffix else ("''", ".onnx"))
