"""The machine's state, read from a made-up /proc and /sys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgekd.profiles.cautions import Caution, CautionKind
from edgekd.profiles.machine import MachineState, read_machine
from edgekd.profiles.machine_cautions import machine_cautions

QUIET = MachineState(frozenset({"performance"}), 100.0, 5, 2, False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_reading_a_linux_machine(tmp_path: Path) -> None:
    cpus = "sys/devices/system/cpu"
    root = write(
        tmp_path,
        {
            # user nice system idle iowait irq softirq steal guest guest_nice
            "proc/stat": "cpu  100 20 30 9999 8888 4 5 6 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n",
            "proc/vmstat": "pgpgin 77\npswpin 3\npswpout 4\nnr_free 9\n",
            f"{cpus}/cpu0/cpufreq/scaling_governor": "ondemand\n",
            f"{cpus}/cpu1/cpufreq/scaling_governor": "performance\n",
            f"{cpus}/cpu0/thermal_throttle/core_throttle_count": "2\n",
            f"{cpus}/cpu1/thermal_throttle/package_throttle_count": "5\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        },
    )
    assert read_machine(root) == MachineState(
        frozenset({"ondemand", "performance"}), 1.65, 7, 7, True, stolen_seconds=0.06
    )


def test_clocks_and_temperatures(tmp_path: Path) -> None:
    cpus, zones = "sys/devices/system/cpu", "sys/class/thermal"
    root = write(
        tmp_path,
        {
            f"{cpus}/cpu0/cpufreq/scaling_cur_freq": "600000\n",
            f"{cpus}/cpu1/cpufreq/scaling_cur_freq": "1500000\n",
            f"{zones}/thermal_zone0/temp": "48312\n",
            f"{zones}/thermal_zone0/type": "cpu-thermal\n",
            f"{zones}/thermal_zone1/temp": "61000\n",
            f"{zones}/thermal_zone2/type": "asleep\n",
            "proc/cpuinfo": "cpu MHz\t\t: 2300.000\n",
        },
    )
    state = read_machine(root)
    assert state.clocks_mhz == (600.0, 1500.0)
    assert state.temperatures_c == (("cpu-thermal", 48.312), ("thermal_zone1", 61.0))
    assert (state.clock_mhz, state.temperature_c) == (1500.0, 61.0)


def test_only_the_cores_that_may_be_used_count(tmp_path: Path) -> None:
    stat = (
        "cpu  900 0 0 0 0 0 0 90\ncpu0 100 0 0 0 0 0 0 10\ncpu1 700 0 0 0 0 0 0 80\ncpu10 100 0 0 0 0 0 0 0\n"
    )
    root = write(tmp_path, {"proc/stat": stat})
    assert (read_machine(root).busy_seconds, read_machine(root).stolen_seconds) == (9.9, 0.9)
    state = read_machine(root, cores={0, 10})
    assert (state.busy_seconds, state.stolen_seconds) == (2.1, 0.1)
    assert read_machine(root, cores={7}).busy_seconds is None


@pytest.mark.parametrize(
    ("name", "text", "seconds"),
    [
        ("cpu.stat", "usage_usec 9\nnr_throttled 3\nthrottled_usec 250000\n", 0.25),
        ("cpu/cpu.stat", "nr_periods 5\nnr_throttled 3\nthrottled_time 1500000000\n", 1.5),
        ("cpu.stat", "usage_usec 9\n", 0.0),
    ],
)
def test_the_quota_of_a_container(tmp_path: Path, name: str, text: str, seconds: float) -> None:
    assert read_machine(write(tmp_path, {f"sys/fs/cgroup/{name}": text})).quota_seconds == seconds


def test_zones_of_one_name_stay_apart(tmp_path: Path) -> None:
    zones = "sys/class/thermal/thermal_zone"
    files = {f"{zones}{n}/{key}": text for n, temp in ((0, "27800"), (1, "45000"))
             for key, text in (("temp", temp), ("type", "acpitz\n"))}  # fmt: skip
    assert read_machine(write(tmp_path, files)).temperatures_c == (
        ("acpitz", 27.8),
        ("acpitz (thermal_zone1)", 45.0),
    )


def test_clocks_of_a_machine_without_a_frequency_driver(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/cpuinfo": "cpu MHz\t\t: 2300.000\nflags : a\ncpu MHz\t\t: 1200.5\n"})
    assert read_machine(root).clocks_mhz == (2300.0, 1200.5)
    assert (
        read_machine(tmp_path / "nowhere").clock_mhz,
        read_machine(tmp_path / "nowhere").temperature_c,
    ) == (
        None,
        None,
    )


def test_a_pi_that_was_throttled_long_ago_is_not_throttled_now(tmp_path: Path) -> None:
    root = write(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n"})
    assert not read_machine(root).throttled_now


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    state = read_machine(tmp_path)
    assert state == MachineState(frozenset(), None, 0, 0, False)
    assert machine_cautions(state, state, threads=1, cores=2, seconds=10.0, own_seconds=9.0) == []


def cautions(after: MachineState, **options: object) -> list[Caution]:
    numbers = {"threads": 1, "cores": 2, "seconds": 10.0, "own_seconds": 9.5, **options}
    return machine_cautions(QUIET, after, **numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"governors": frozenset({"powersave"})}, CautionKind.GOVERNOR),
        ({"busy_seconds": 119.5}, CautionKind.CORES_SHARED),
        ({"swapped_pages": 6}, CautionKind.SWAP),
        ({"throttle_events": 3}, CautionKind.THROTTLED),
        ({"throttled_now": True}, CautionKind.THROTTLED),
        ({"stolen_seconds": 0.6}, CautionKind.STOLEN),
        ({"quota_seconds": 0.3}, CautionKind.QUOTA),
    ],
)
def test_each_trouble_has_its_own_warning(change: dict[str, object], kind: CautionKind) -> None:
    quiet = replace(QUIET, busy_seconds=109.6)
    assert cautions(quiet) == []
    found = cautions(replace(quiet, **change))  # type: ignore[arg-type]
    assert [caution.kind for caution in found] == [kind]


def test_the_share_of_others_is_said() -> None:
    # 19.5 s of processor time in 10 s, 9.5 s of them ours.
    (caution,) = cautions(replace(QUIET, busy_seconds=119.5))
    assert str(caution).startswith("other processes used 1.0 of 2 cores")


def test_more_threads_than_cores() -> None:
    (caution,) = cautions(replace(QUIET, busy_seconds=109.6), threads=4)
    assert (caution.kind, str(caution)) == (
        CautionKind.TOO_MANY_THREADS,
        "4 threads on 2 cores: they take turns",
    )


def test_waiting_for_a_core_that_others_have() -> None:
    # Half of the time in which it could have run; the rest of the machine looks idle.
    quiet = replace(QUIET, busy_seconds=None)
    (caution,) = cautions(quiet, own_seconds=5.0, wait_seconds=5.0)
    assert caution.kind is CautionKind.CORES_SHARED
    assert str(caution) == (
        "the model waited 50% of its time for a core that others had: stop them and measure again"
    )
    assert cautions(quiet, own_seconds=9.5, wait_seconds=0.1) == []
    assert cautions(quiet, own_seconds=9.5, wait_seconds=None) == []


def test_threads_that_wait_for_each_other_are_no_others() -> None:
    found = cautions(replace(QUIET, busy_seconds=None), threads=4, own_seconds=9.5, wait_seconds=9.0)
    assert [caution.kind for caution in found] == [CautionKind.TOO_MANY_THREADS]


def clocked(*megahertz: float) -> list[MachineState]:
    return [replace(QUIET, clocks_mhz=(300.0, clock)) for clock in megahertz]


def test_a_clock_that_moved_between_the_turns() -> None:
    quiet = replace(QUIET, busy_seconds=109.6)
    (caution,) = cautions(quiet, between=clocked(1500, 1490, 1200))
    assert caution.kind is CautionKind.CLOCK_MOVED
    assert "between 1200 and 1500 MHz" in str(caution)
    assert cautions(quiet, between=clocked(1500, 1490, 1480)) == []
    assert cautions(quiet, between=[]) == []


@pytest.mark.parametrize(("degrees", "word"), [(66.0, "hotter"), (30.0, "cooler"), (52.0, None)])
def test_a_temperature_that_moved(degrees: float, word: str | None) -> None:
    before = replace(QUIET, temperatures_c=(("gpu", 40.0), ("cpu", 48.0)))
    after = replace(
        before, busy_seconds=109.6, temperatures_c=(("cpu", degrees), ("new", 90.0), ("gpu", 41.0))
    )
    found = machine_cautions(before, after, threads=1, cores=2, seconds=10.0, own_seconds=9.5)
    assert [caution.kind for caution in found] == ([CautionKind.TEMPERATURE] if word else [])
    if word:
        assert str(found[0]).startswith(f"cpu went from 48 to {degrees:.0f} °C: what ran later ran {word}")


def test_throttled_in_the_middle_only() -> None:
    quiet = replace(QUIET, busy_seconds=109.6)
    found = cautions(quiet, between=[quiet, replace(quiet, throttled_now=True), quiet])
    assert [caution.kind for caution in found] == [CautionKind.THROTTLED]
