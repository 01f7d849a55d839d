"""From a file here to a report of the board: the whole way, on a real sshd and a real runtime."""

from __future__ import annotations

from edgekd.profiles.ssh import measure_on_host


def test_two_files_measured_on_the_board(board, make_model, tmp_path) -> None:
    small, large = make_model("small.onnx"), make_model("large.onnx", size=500)
    seen = []
    found = measure_on_host(
        {"small": small, "large": large},
        "board",
        rounds=3,
        runs=10,
        warmup=2,
        options=board.options,
        progress=lambda *step: seen.append(step),
    )

    assert found.order == ("small", "large", "large", "small", "small", "large")
