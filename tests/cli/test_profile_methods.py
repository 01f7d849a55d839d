"""``edgekd profile`` has three ways to know a latency: each says which it was, and refuses what it cannot follow."""

from __future__ import annotations

import json

import pytest


def _json(edgekd, *arguments):
    done = edgekd(*arguments, "--json", "-")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_board_that_is_not_here_is_estimated_and_says_so(edgekd, onnx_file):
    done = edgekd("profile", onnx_file, "--device", "raspberry-pi-4b")
    assert done.code == 0, done.err
    assert "estimated" in done.out and "~" in done.out and "measured" not in done.out.splitlines()[1]
    (report,) = _json(edgekd, "profile", onnx_file, "--device", "raspberry-pi-4b")["reports"]
    assert report["kind"] == "estimated" and report["device"] == "raspberry-pi-4b"
    assert 0 < report["low_ms"] < report["p50_ms"] < report["high_ms"]
    assert report["samples"] == 0 and report["p99_ms"] is None
    assert sum(operator["milliseconds"] for operator in report["operators"]) == pytest.approx(
        report["p50_ms"], rel=0.2
    )


def test_boards_and_runtimes_multiply(edgekd, onnx_file):
    boards = ("--device", "raspberry-pi-4b", "--device", "raspberry-pi-5")
    runtimes = ("--runtime", "onnxruntime", "--runtime", "tflite")
    found = _json(edgekd, "profile", onnx_file, *boards, *runtimes)["reports"]
    assert [(r["device"], r["runtime"]) for r in found] == [
        (device, runtime) for device in boards[1::2] for runtime in runtimes[1::2]
    ]


def test_the_machine_at_hand_is_measured(edgekd, onnx_file):
    quick = ("--rounds", 1, "--runs", 3, "--warmup", 1)
    found = _json(edgekd, "profile", onnx_file, *quick, "--operators", "--raw")
    (report,) = found["reports"].values()
    assert report["kind"] == "measured" and len(report["rounds_ms"][0]) == 3
    assert {"op_type", "node", "mean_us"} <= set(found["operators"][onnx_file.name][0])
    table = edgekd("profile", onnx_file, *quick).out
    assert "measured" in table and "~" not in table


def test_the_machine_at_hand_can_be_estimated_too(edgekd, onnx_file):
    (report,) = _json(edgekd, "profile", onnx_file, "--method", "estimate", "--threads", 1)["reports"]
    assert report["kind"] == "estimated" and report["device"] == "cpu" and report["threads"] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--device", "raspberry-pi-4b", "--method", "measure"], ["--host", "--method emulate", "estimate"]),
        (["--device", "raspberry-pi-4b", "--seconds", "3"], ["--seconds", "measuring"]),
        (["--device", "raspberry-pi-4b", "--streams", "2"], ["--streams", "measuring"]),
        (["--precision", "int8"], ["--precision", "measures the file as it is"]),
        (["--power-mode", "MAXN"], ["--power-mode"]),
        (["--method", "emulate", "--device", "raspberry-pi-5", "--precision", "int8"], ["--precision"]),
        (["--method", "emulate", "--device", "raspberry-pi-5", "--runtime", "tflite"], ["--runtime", "tflite"]),
        (["--method", "measure", "--device", "cpu", "--device", "raspberry-pi-5"], ["one device"]),
        (["--device", "raspbery-pi-5"], ["raspberry-pi-5"]),
        (["--device", "raspberry-pi-5", "--runtime", "tensorrt"], ["tensorrt"]),
        (["--device", "jetson-orin-nano", "--power-mode", "TURBO"], ["TURBO", "15W"]),
        (["--device", "raspberry-pi-5", "--threads", "0"], ["threads", "0"]),
        (["--device", "raspberry-pi-5", "--precision", "int3"], ["int3", "fp32"]),
        (["--device", "jetson-nano"], ["cannot take the opset", "export with opset 13"]),
        (["--runs", "0"], ["runs", "0"]),
        (["--rounds", "-1"], ["rounds", "-1"]),
        (["--provider", "cuda"], ["cuda"]),
        (["--runtime", "onxruntime"], ["onnxruntime"]),
        (["--host", "-oProxyCommand=id"], ["-oProxyCommand=id"]),
        (["--host", "a;b"], ["a;b"]),
        (["--host", "pi@board", "--operators"], ["--operators", "on the board"]),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_one_line(refused, onnx_file, arguments, says):
    refused("profile", onnx_file, *arguments, says=tuple(says))


def test_the_library_prices_a_network_whose_file_the_board_cannot_load(onnx_file):
    from edgekd.profiles import estimate

    found = estimate(onnx_file, "jetson-nano")
    assert found.p50_ms > 0 and any(
        "does not load there" in note and "opset 13" in note for note in found.notes
    )
    assert not any("does not load" in note for note in estimate(onnx_file, "jetson-orin-nano@6.2").notes)
