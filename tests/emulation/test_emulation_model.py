"""Counts to milliseconds: what each fact of a board does to the time."""

from __future__ import annotations

import pytest

from edgekd.device import load_device, parse_device
from edgekd.profiles.emulation.calibration import Calibration, calibration, speed_up, timing
from edgekd.profiles.emulation.cores import emulated_core, present_board
from edgekd.profiles.emulation.counts import Counts, OperatorCounts, Region
from edgekd.profiles.emulation.model import Work, milliseconds, predict, terms, work
from edgekd.profiles.emulation.sharing import alone_share, own_instructions
from edgekd.profiles.estimation.hardware import read_hardware

FMLA, ADD = 0x4F821020, 0x8B020820
PLAIN = Calibration(waits_mac=1.0, waits_other=1.0, share=1.0, spread=1.2, fitted=True)


def region(fma: int, other: int, lines: int) -> Region:
    return Region("end", lines, ((9 * lines, 0), (lines // 2, lines - lines // 2), (0, 0)),
                  {(FMLA,): fma, (ADD,): other})  # fmt: skip


def counts(fma=80_000_000, other=100_000_000, lines=1_000_000) -> Counts:
    heavy = OperatorCounts("conv", "Conv", "conv-1x1", 7, 9, region(fma, other // 2, 0))
    moving = OperatorCounts("add", "Add", "elementwise", 0, 9, region(0, other // 2, lines))
    # Without the profiler there is less to do than its operators add up to.
    return Counts(region(fma, other - 9_000_000, lines), (heavy, moving))


def board(core: str, clock: float, cores: int = 4, bandwidth: float = 12.8):
    text = load_device("raspberry-pi-4b").model_dump(mode="json", exclude={"facts"}, exclude_none=True)
    facts = [
        {"key": "cpu_core", "value": core, "unit": "", "source": "test"},
        {"key": "cpu_cores", "value": cores, "unit": "cores", "source": "test"},
        {"key": "cpu_clock_max", "value": clock, "unit": "GHz", "source": "test"},
        {"key": "mem_bw_theoretical", "value": bandwidth, "unit": "GB/s", "source": "test"},
    ]
    import yaml

    return parse_device(yaml.safe_dump({**text, "name": "made", "facts": facts}), where="test")


def test_work_weighs_instructions_by_the_cores_manual():
    found = work({"simd-fma": 10, "simd-dot": 4, "simd-load": 6, "integer": 100}, 5, "narrow")
    assert found == Work(mac_cycles=14.0, other_cycles=pytest.approx(6.0 + 40.0), lines=5)
    assert work({"simd-fma": 10}, 0, "wide").mac_cycles == 5.0


def test_a_golden_time_by_hand():
    # 1.8 GHz, 3 + 6 Mcycles = 5 ms for one thread; 1 M lines of 64 bytes at 5.186 GB/s (STREAM) = 12.34 ms for four.
    hardware = read_hardware(load_device("raspberry-pi-4b"))
    assert milliseconds(Work(3e6, 6e6, 0), hardware, 1, PLAIN)[0] == pytest.approx(5.0)
    compute, memory = milliseconds(Work(3e6, 6e6, 1e6), hardware, 4, PLAIN)
    assert compute == pytest.approx(5.0 * (0.18 + 0.82 / 4))
    assert memory == pytest.approx(64.0 / 5.186, rel=1e-3)


def test_the_threads_of_the_published_pi_4_speed_up():
    """MobileNetV2's counts; ONNX Runtime on a Pi 4 was published as 1.71, 2.27, 2.53 times faster."""
    hardware, by = read_hardware(load_device("raspberry-pi-4b")), calibration("Cortex-A72", "narrow")
    found = Work(80.1e6, 79.0e6, 1.488e6)
    once = sum(milliseconds(found, hardware, 1, by))
    gains = [once / sum(milliseconds(found, hardware, threads, by)) for threads in (2, 3, 4)]
    assert gains == pytest.approx([1.71, 2.27, 2.53], rel=0.04)
    assert speed_up(1) == 1.0


def test_more_threads_do_not_speed_up_what_one_of_them_runs_alone():
    hardware = read_hardware(load_device("raspberry-pi-4b"))
    times = [milliseconds(Work(3e6, 6e6, 0, alone=1.0), hardware, threads, PLAIN)[0] for threads in (1, 4)]
    assert times == pytest.approx([5.0, 5.0])
    half = milliseconds(Work(3e6, 6e6, 0, alone=0.5), hardware, 4, PLAIN)[0]
    assert half == pytest.approx(5.0 * (0.5 + 0.5 * (0.18 + 0.82 / 4)))


def test_small_operators_and_the_runtime_around_them_run_alone():
    # Two operators of 30,000 and 900,000 and 50,000 around them; the profiler adds 27,000 to each.
    assert own_instructions(980_000, [57_000, 927_000]) == [30_000, 900_000]
    assert alone_share(980_000, [57_000, 927_000]) == pytest.approx(80 / 980)
    assert alone_share(40_000, []) == 1.0


def test_a_much_smaller_network_than_any_published_is_not_validated():
    spec = load_device("raspberry-pi-4b")
    core = emulated_core(spec)
    few = counts(fma=400_000, other=1_000_000 + 9_000_000, lines=1_000)
    small, usual = (predict(each, spec, core, threads=4, precision="fp32") for each in (few, counts()))
    assert usual.validated and not small.validated
    assert small.high / small.low > usual.high / usual.low
    assert any("smallest network published for this core" in note for note in small.notes)


def test_a_higher_clock_speeds_up_the_core_and_not_the_memory():
    by, found = calibration("Cortex-A72", "narrow"), Work(8e7, 4e7, 1e6)
    slow = milliseconds(found, read_hardware(board("Cortex-A72", 1.0)), 4, by)
    fast = milliseconds(found, read_hardware(board("Cortex-A72", 2.0)), 4, by)
    assert slow[0] == pytest.approx(2 * fast[0])
    assert slow[1] == fast[1]


def test_more_bandwidth_speeds_up_the_memory_alone():
    found = Work(8e7, 4e7, 1e6)
    narrow = terms(found, read_hardware(board("Cortex-A72", 1.8, bandwidth=12.8)), 4)
    broad = terms(found, read_hardware(board("Cortex-A72", 1.8, bandwidth=25.6)), 4)
    assert narrow[:2] == broad[:2]
    assert narrow[2] > 1.9 * broad[2]


@pytest.mark.parametrize(
    ("name", "core"),
    [("raspberry-pi-zero-2w", "Cortex-A53"), ("raspberry-pi-3b-plus", "Cortex-A53"),
     ("rk3399", "Cortex-A72"), ("rk3588", "Cortex-A76"), ("jetson-nano", "Cortex-A57")],
)  # fmt: skip
def test_a_board_follows_from_its_facts_without_a_fit(name, core):
    spec = load_device(name)
    found = emulated_core(spec)
    assert found.name == core
    predicted = predict(counts(), spec, found, threads=None, precision="fp32")
    assert 0 < predicted.low < predicted.milliseconds < predicted.high
    assert predicted.threads == read_hardware(spec).clusters[0].cores
    if core in timing()["fitted"]:
        assert predicted.validated == calibration(core, "").covers(read_hardware(spec))
        assert predicted.validated or any("calibrated on a" in note for note in predicted.notes)
    else:
        assert not predicted.validated and any("relatives" in note for note in predicted.notes)
        assert predicted.high / predicted.milliseconds >= timing()["spread_of_relatives"] - 1e-9


def test_one_core_with_another_memory_is_predicted_and_not_called_validated():
    """The RK3588 has the Pi 5's cores and twice its memory bandwidth."""
    pi, rock = load_device("raspberry-pi-5"), load_device("rk3588")
    ours, theirs = (predict(counts(), s, emulated_core(s), threads=4, precision="fp32") for s in (pi, rock))
    assert ours.validated and not theirs.validated
    assert theirs.milliseconds < ours.milliseconds and theirs.high / theirs.low > ours.high / ours.low


def test_the_slower_board_of_one_core_is_slower():
    def of(name):
        spec = load_device(name)
        return predict(counts(), spec, emulated_core(spec), threads=None, precision="fp32").milliseconds

    assert (
        of("raspberry-pi-zero-2w") > of("raspberry-pi-3b-plus") > of("raspberry-pi-4b") > of("raspberry-pi-5")
    )


def test_operators_add_up_to_the_whole_and_say_what_binds_them():
    spec = load_device("raspberry-pi-4b")
    predicted = predict(counts(), spec, emulated_core(spec), threads=4, precision="fp32")
    assert sum(each.milliseconds for each in predicted.operators) == pytest.approx(predicted.milliseconds)
    assert [each.bound for each in predicted.operators] == ["compute", "memory"]


def test_int8_is_not_called_validated():
    spec = load_device("raspberry-pi-5")
    core = emulated_core(spec)
    whole = predict(counts(), spec, core, threads=4, precision="int8")
    fp32 = predict(counts(), spec, core, threads=4, precision="fp32")
    assert fp32.validated and not whole.validated
    assert whole.high > fp32.high
    assert predict(counts(), spec, core, threads=1, precision="fp32").validated is False


def test_fitted_parameters_are_physical():
    for name in timing()["fitted"]:
        by = calibration(name, "")
        assert 0 < by.waits_mac < 4 and 0.5 < by.waits_other < 5 and 0.1 < by.share <= 1


def test_a_core_without_rows_takes_its_relatives_parameters():
    wide, narrow = calibration("Cortex-A76", "wide"), calibration("Cortex-A72", "narrow")
    assert calibration("Cortex-A78AE", "wide").share == wide.share
    assert calibration("Cortex-A57", "narrow").waits_other == narrow.waits_other
    inner = calibration("Cortex-A53", "in-order")
    assert inner.share == narrow.share and not inner.fitted
    assert wide.spread < calibration("Cortex-A78AE", "wide").spread < inner.spread


def test_the_runtime_reads_the_boards_files_and_not_this_machines(tmp_path):
    root, view = tmp_path / "root", tmp_path / "view"
    for name in ("usr", "lib", "proc"):
        (root / name).mkdir(parents=True)
    view.mkdir()
    present_board(emulated_core(load_device("raspberry-pi-5")), root, view)
    cpuinfo = (view / "proc/cpuinfo").read_text()
    assert "CPU part\t: 0xd0b\n" in cpuinfo and "asimddp" in cpuinfo
    present_pi4 = emulated_core(load_device("raspberry-pi-4b"))
    assert present_pi4.part == "0xd08" and "asimddp" not in present_pi4.features
    assert (view / "usr").resolve() == root / "usr" and not (view / "proc").is_symlink()


def test_caches_come_from_the_boards_facts():
    assert emulated_core(load_device("raspberry-pi-5")).caches == ((64, 4), (512, 8), (2048, 16))
    assert emulated_core(load_device("rk3588")).caches[2] == (3072, 16)
    assert emulated_core(board("Cortex-A72", 1.5)).caches == ((32, 2), (1024, 16))
