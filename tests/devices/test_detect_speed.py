"""The script that asks a machine, and what it measured there: rates are facts that say how they were had."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekd import device_probe
from edgekd.cpu import cpu_from_text, detect_cpu
from edgekd.device import load_device
from edgekd.device_detect import parse_report
from edgekd.device_facts import fact_number
from edgekd.device_spec import DeviceSpec
from edgekd.machine_speed import Speed, remember, remembered, speed_facts
from edgekd.probe import busy_note, detect_device, probe_script, run_here

Found = Callable[..., DeviceSpec]
Boards = SimpleNamespace


def test_the_script_is_python_3_6_and_standard_library() -> None:
    tree = ast.parse(probe_script(speed=True), feature_version=(3, 6))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names - {"numpy"} <= sys.stdlib_module_names  # numpy only where it is, for the rate of products
    assert "edgekd" not in {name.split(".")[0] for name in names}


def test_the_script_runs_here_and_gives_this_machine() -> None:
    spec = detect_device(speed=False)
    cpu = detect_cpu()
    assert (spec.arch, spec.cores, spec.scheme) == (cpu.arch, cpu.cores, cpu.scheme)
    assert spec.fact("memcpy_1t") is None
    report = parse_report(run_here(probe_script(speed=False)), where="here")
    assert cpu_from_text(dict(report.files), machine=report.machine, cores=report.cores) == cpu


def test_a_board_is_asked_by_whatever_runs_a_script_there(boards: Boards) -> None:
    asked = []

    def over_ssh(script: str) -> str:
        asked.append(script)
        return json.dumps(boards.pi4)

    assert detect_device(over_ssh, where="pi@board", name="kitchen").name == "kitchen"
    assert asked == [probe_script(speed=True)]
    assert not remembered(detect_cpu())  # what a board measured is not this machine's


def test_measured_rates_are_facts_that_say_how(found: Found, boards: Boards) -> None:
    speed = Speed(cores=4, load=0.5, copy_1core=2.33e9, copy_all=2.76e9, copy_buffer_all=2.0**25,
                  flops_1core=1.1958e10, flops_all=0.0)  # fmt: skip
    facts = {fact["key"]: fact for fact in speed_facts(speed)}
    assert {key: (fact["value"], fact["unit"]) for key, fact in facts.items()} == {
        "memcpy_1t": (2.33, "GB/s"), "stream_copy": (5.52, "GB/s"), "cpu_fp32_measured_1core": (12.0, "GFLOP/s"),
    }  # fmt: skip
    assert all(fact["source"].startswith("measured: ") for fact in facts.values())
    assert "each of 4 processes copies a buffer of 32 MiB" in facts["stream_copy"]["source"]
    spec = found({**boards.pi4, "speed": speed.model_dump()})
    assert fact_number(spec, "stream_copy") == 5.52  # instead of the published figure
    assert spec.fact("cpu_fp32_measured") is None


def test_rates_taken_on_a_busy_machine_come_with_a_note(found: Found, boards: Boards) -> None:
    speed = Speed(cores=4, load=2.4, copy_1core=2e9)
    note = busy_note(found({**boards.pi4, "speed": speed.model_dump()}))
    assert note is not None and "the load was 2.4 on 4 cores" in note
    quiet = found({**boards.pi4, "speed": {**speed.model_dump(), "load": 1.9}})
    assert busy_note(quiet) is None and busy_note(found(boards.pi4)) is None


def test_what_was_measured_here_stays_with_this_machine(tmp_path: Path) -> None:
    cpu = detect_cpu()
    facts = speed_facts(Speed(cores=2, copy_1core=7e9))
    path = remember(cpu, facts)
    assert fact_number(load_device("cpu"), "memcpy_1t") == 7.0
    path.write_text(path.read_text().replace(cpu.title, "another processor"))
    assert load_device("cpu").fact("memcpy_1t") is None
    path.write_text("{")
    assert load_device("cpu").fact("memcpy_1t") is None


def test_rates_of_several_processes_are_added_and_a_failure_is_no_rate(tmp_path: Path) -> None:
    def works(size: int, start: float) -> float:
        return 2.5 * size

    def fails(size: int, start: float) -> float:
        raise MemoryError

    def one_fails(size: int, start: float) -> float:
        (tmp_path / "first").touch(exist_ok=False)
        return 1.0

    assert device_probe.together(works, 3, 2) == 15.0
    assert device_probe.together(fails, 2, 2) == 0.0
    assert device_probe.together(one_fails, 2, 2) == 0.0


def test_the_rate_is_of_a_round_that_nothing_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waits = [0.0], iter([0.0, 0.1, 0.01, 0.01, 9.0, 0.01, 0.01])  # the first is the warm-up

    def work() -> None:
        clock[0] += next(waits)

    monkeypatch.setattr(device_probe.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(device_probe, "SECONDS", 9.0)
    assert device_probe.rate(work, 1.0, 0.0) == pytest.approx(100.0)
