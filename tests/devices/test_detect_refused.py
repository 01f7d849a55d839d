"""Answers of a machine that make no device: one line each, and nothing of theirs reaches the terminal."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.device_detect import parse_report
from edgekd.device_spec import DeviceSpec
from edgekd.errors import DeviceError
from edgekd.probe import run_here

Found = Callable[..., DeviceSpec]
Machine = Callable[..., dict[str, Any]]
Boards = SimpleNamespace


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"bits": 32},
            r"^board: Python there is a 32-bit program; got '32-bit aarch64'; install the board's 64",
        ),
        ({"machine": "armv7l"}, r"unknown architecture; got 'armv7l'; allowed: x86_64, aarch64"),
        ({"cores": 0}, r"^board: the machine's answer is not what the script prints; got '.*greater than"),
        ({"files": ["/etc/passwd"]}, r"^board: the machine's answer is not what the script prints"),
        ({"speed": {"cores": 4, "copy_all": float("inf")}}, r"the machine's answer is not what"),
    ],
)
def test_an_answer_that_makes_no_device_is_one_line(
    change: dict[str, Any], message: str, found: Found, boards: Boards
) -> None:
    with pytest.raises(DeviceError, match=message) as caught:
        found({**boards.pi4, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "bash: python3: not found", "[" * 100000, "[]", "null"])
def test_an_answer_that_is_no_report_is_one_line(text: str) -> None:
    with pytest.raises(
        DeviceError, match=r"^pi: the machine's answer is not what the script prints"
    ) as caught:
        parse_report(text, where="pi")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/proc/meminfo", "MemTotal: " + "9" * 5000 + " kB"),
        ("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "²"),
        ("/sys/class/devfreq/17000000.gpu/available_frequencies", "1" * 5000),
        ("/sys/devices/system/cpu/cpu0/cache/index0/size", "7" * 5000 + "K"),
    ],
)
def test_figures_that_no_machine_has_are_one_line(path: str, text: str, found: Found, boards: Boards) -> None:
    strange = {**boards.pi5, "files": {**boards.pi5["files"], path: text}}
    with pytest.raises(DeviceError, match=r"^board: the machine's answer makes no device; got ") as caught:
        found(strange)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


def test_a_name_that_is_none_is_refused(found: Found, boards: Boards) -> None:
    with pytest.raises(DeviceError, match=r"^board: name: .*got '../x'"):
        found(boards.pi4, name="../x")


def test_escape_sequences_of_a_board_do_not_reach_the_terminal(
    found: Found, machine: Machine, cores: Boards
) -> None:
    evil = machine([cores.a72] * 4, model="Raspberry Pi 4 Model B\x1b[2J\nname: x")
    spec = found(evil)
    assert spec.title == "Raspberry Pi 4 Model B[2Jname: x"
    assert "\x1b" not in spec.to_yaml()


def test_a_script_that_fails_here_is_one_line() -> None:
    with pytest.raises(DeviceError, match=r"^this machine: the script fails; got 'ValueError: no'$"):
        run_here("raise ValueError('no')")
