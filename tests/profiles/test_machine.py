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


def test_a_pi_that_was_throttled_long_ago_is_not_throttled_now(tmp_path: Path) -> None:
    root = write(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n"})
    assert not read_machine(root).throttled_now


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    state = read_machine(tmp_path)
    assert state == MachineState(frozenset(), None, 0, 0, False)
    assert machine_cautions(state, state, threads=1, cores=2, seconds=10.0, own_seconds=9.0) == []


def cautions(after: MachineState, **options: float) -> list[Caution]:
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
