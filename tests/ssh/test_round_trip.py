"""From a file here to a report of the board: the whole way, on a real sshd and a real runtime."""

from __future__ import annotations

import json
import platform
import shutil
import sys

import pytest

from edgekd.artifact import sha256_file
from edgekd.errors import DeviceError, ModelFileError, UserInputError
from edgekd.profiles import CautionKind, LatencyReport
from edgekd.profiles.ssh.destination import SshOptions
from edgekd.profiles.ssh.measured import measure_on_host

QUICK = {"rounds": 2, "runs": 5, "warmup": 1, "resume": False}
MACHINE = {"x86_64": "x86-64-avx2", "aarch64": "raspberry-pi-4b"}
ORIN_NANO = "RAM 2505/7620MB VDD_IN 4680mW/4680mW VDD_CPU_GPU_CV 480mW/480mW VDD_SOC 1440mW/1440mW"


def test_two_files_are_measured_there_in_turn(board, make_model) -> None:
    # A name that a shell or an option parser would trip over; 2000 times the work in the second file.
    small = make_model("--name with 'quotes' $(touch x) \"and\"\nlines.onnx")
    large = make_model("large.onnx", size=700)
    seen = []
    found = measure_on_host(
        {"small": small, "large": large}, "board", rounds=3, runs=10, warmup=2, resume=False,
        options=board.options, progress=lambda *step: seen.append(step),
    )  # fmt: skip
    assert found.order == ("small", "large", "large", "small", "small", "large")
    assert found.ratio("large", "small").value > 3
    report = found.reports["small"]
    assert isinstance(report, LatencyReport)
    assert (report.kind, report.host, report.device, report.runtime) == (
        "measured", "board", platform.machine(), "onnxruntime",
    )  # fmt: skip
    assert [len(samples) for samples in report.rounds_ms] == [10, 10, 10]
    assert report.model_sha256 == sha256_file(small)
    assert report.load_ms > 0 and report.first_inference_ms > 0
    assert found.reports["large"].peak_memory_bytes > report.base_memory_bytes + 700 * 700 * 4
    assert json.loads(json.dumps(report.to_json()))["host"] == "board"
    labels = [label for _, _, label in seen]
    assert (100, 100, "copy to board") in seen
    assert labels[-7:] == ["small", "large", "large", "small", "small", "large", ""]


def test_external_data_go_along(board, make_model) -> None:
    model = make_model(size=200, external="the weights' file.data")
    found = measure_on_host({"m": model}, "board", options=board.options, **QUICK)
    assert found.reports["m"].samples == 10
    model.with_name("the weights' file.data").unlink()
    with pytest.raises(ModelFileError, match="its external data is missing"):
        measure_on_host({"m": model}, "board", options=board.options, **QUICK)


def test_external_data_outside_of_the_models_folder_do_not_go_along(board, make_model, tmp_path) -> None:
    model = make_model(size=20, external="beside.data")
    inner = tmp_path / "inner"
    inner.mkdir()
    shutil.copy(model, inner)
    text = (inner / model.name).read_bytes().replace(b"beside.data", b"../beside.d")
    (inner / model.name).write_bytes(text)
    (tmp_path / "beside.d").write_bytes((tmp_path / "beside.data").read_bytes())
    with pytest.raises(
        ModelFileError, match=r"its external data lie outside its folder; got '\.\./beside\.d'"
    ):
        measure_on_host({"m": inner / model.name}, "board", options=board.options, **QUICK)


def test_what_is_wrong_with_a_file_is_said_with_its_name_here(board, make_model) -> None:
    model = make_model(operator="NoSuchOperator")
    with pytest.raises(ModelFileError, match=r"NoSuchOperator") as caught:
        measure_on_host({"m": model}, "board", options=board.options, **QUICK)
    assert str(model) in str(caught.value) and "/proc/" not in str(caught.value)
    assert str(caught.value).startswith("board: ")


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"runs": -1}, {"seconds": 0.0}, {"runtime": "no-such"}])
def test_wrong_numbers_are_refused_before_anybody_connects(make_model, wrong) -> None:
    with pytest.raises(
        UserInputError, match=f"{'measure: ' if 'runtime' not in wrong else ''}{next(iter(wrong))}"
    ):
        measure_on_host({"m": make_model()}, "board", options=SshOptions(program="no-such-ssh"), **wrong)


def test_until_the_median_is_known(board, make_model) -> None:
    found = measure_on_host(
        {"a": make_model("a.onnx", size=64), "b": make_model("b.onnx")}, "board", seconds=1.0, target=0.5,
        threads={"a": 2}, resume=False, options=board.options,
    )  # fmt: skip
    assert [report.threads for report in found.reports.values()] == [2, 1]
    assert found.reports["a"].samples >= 100


def test_a_device_of_another_architecture(board, make_model) -> None:
    other = MACHINE["aarch64" if platform.machine() == "x86_64" else "x86_64"]
    with pytest.raises(
        DeviceError, match=rf"--device {other}: board .*other architecture; got '{platform.machine()}'"
    ):
        measure_on_host({"m": make_model()}, "board", device=other, options=board.options, **QUICK)


def test_a_device_of_this_architecture_names_the_report(board, make_model) -> None:
    name = MACHINE[platform.machine()]
    found = measure_on_host({"m": make_model()}, "board", device=name, options=board.options, **QUICK)
    assert found.reports["m"].device == name


def test_a_throttled_pi_and_a_jetsons_power(board, make_model) -> None:
    """Both in one: the programs of a Pi and of a Jetson print what they are documented to print."""
    board.program(
        "vcgencmd",
        """case "$*" in
get_throttled) if [ -e "$HOME/asked" ]; then echo throttled=0x50005; else echo throttled=0x0; fi; touch "$HOME/asked";;
measure_temp) echo "temp=82.3'C";;
"measure_clock arm") echo "frequency(48)=600117184";;
*) echo 'error=1 error_msg="Command not registered"';;
esac""",
    )
    board.program("nvpmodel", 'echo "NV Power Mode: 15W"; echo 0')
    board.program("tegrastats", f'while :; do echo "{ORIN_NANO}"; sleep 0.01; done')
    found = measure_on_host(
        {"m": make_model(size=300)}, "board", rounds=2, runs=10**9, warmup=0, max_seconds_per_round=0.6,
        resume=False, options=board.options,
    )  # fmt: skip
    report = found.reports["m"]
    assert report.warnings[0].kind is CautionKind.THROTTLED
    assert "get_throttled 0x50005, 82 °C" in str(report.warnings[0])
    health = report.health
    assert health is not None
    assert health.throttled_bits == (0, *[0x50005] * (len(health.throttled_bits) - 1))
    assert len(health.throttled_bits) == 4  # before, after each of two turns, at the end
    assert health.clocks_mhz[0] == pytest.approx(600.1, abs=0.1)
    assert (health.power_mode, health.power_mw, health.power_rails) == ("15W", 4680.0, ("VDD_IN",))
    assert health.energy_mj == pytest.approx(4680 * report.mean_ms / 1e3)
    assert report.to_json()["health"]["energy_mj"] == health.energy_mj


TRTEXEC = """import sys
options = dict(part.lstrip("-").partition("=")[::2] for part in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v101300] # trtexec")
if "saveEngine" in options:
    open(options["saveEngine"], "w").write("engine")
if "exportTimes" in options:
    assert open(options["loadEngine"]).read() == "engine"
    open(options["exportTimes"], "w").write('[{"startComputeMs": 1e6, "latencyMs": 2.5}]' )
"""


def test_a_program_of_the_board_measures(board, make_model) -> None:
    """TensorRT on a Jetson: its engine lies on the board until the rounds are over, and then no more."""
    (board.bin / "trtexec.py").write_text(TRTEXEC)
    board.program("trtexec", f'exec "{sys.executable}" "{board.bin}/trtexec.py" "$@"')
    found = measure_on_host({"m": make_model()}, "board", runtime="trtexec", options=board.options, **QUICK)
    assert (found.reports["m"].runtime, found.reports["m"].p50_ms) == ("trtexec", 2.5)


def test_a_board_that_tells_nothing(board, make_model) -> None:
    health = measure_on_host({"m": make_model()}, "board", options=board.options, **QUICK).reports["m"].health
    assert health is not None
    assert (health.throttled, health.energy_mj, health.power_mode, health.rails_mw) == ((), None, None, {})
