"""Asking a machine what it is: here, or wherever a Python script can be run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib import resources

from edgekd.cpu import detect_cpu
from edgekd.device import load_devices
from edgekd.device_detect import describe, parse_report
from edgekd.device_spec import DeviceSpec
from edgekd.errors import DeviceError, fault
from edgekd.machine_speed import remember, speed_facts

_SECONDS = 60


def probe_script(*, speed: bool) -> str:
    """The script's text; it needs Python 3.6 and nothing else.

    Args:
        speed: also measure copying and, where numpy is, multiplying: some 2 s.
    """
    text = resources.files("edgekd").joinpath("device_probe.py").read_text(encoding="utf-8")
    return text.replace('globals().get("SPEED", False)', repr(speed))


def detect_device(
    run: Callable[[str], str] | None = None,
    *,
    where: str = "this machine",
    name: str = "",
    speed: bool = True,
) -> DeviceSpec:
    """A machine as a device description.

    Args:
        run: runs a Python script there and returns what it prints; by default on this machine.
        where: begins an error, such as the host's name.
        name: of the device; by default made from the board's and the host's.
        speed: also measure how fast it copies and multiplies.

    Raises:
        DeviceError: the script fails there, or the machine has no runtime; one line.
    """
    text = (run or run_here)(probe_script(speed=speed))
    report = parse_report(text, where=where)
    known, _ = load_devices()
    spec = describe(report, [each for each in known if each.name != "cpu"], where=where, name=name)
    if run is None and report.speed is not None:
        remember(detect_cpu(), speed_facts(report.speed))
    return spec


def busy_note(spec: DeviceSpec) -> str | None:
    """A line about rates that were measured while other programs ran; None if few did."""
    fact = spec.fact("memcpy_1t")
    load = re.search(r"load before ([\d.]+)", fact.source) if fact else None
    if load is None or float(load[1]) < 0.5 * spec.cores:
        return None
    return f"note: the load was {load[1]} on {spec.cores} cores: the measured rates may be low; detect again when idle"


def run_here(script: str) -> str:
    """Run a script in a Python process of its own and return what it prints.

    Raises:
        DeviceError: it fails or takes longer than a minute.
    """
    try:
        done = subprocess.run(  # noqa: S603  (our own script, our own interpreter)
            [sys.executable, "-c", script],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(fault("this machine", "the script cannot be run", got=str(error))) from None
    if done.returncode:
        told = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing"]
        raise DeviceError(fault("this machine", "the script fails", got=told[-1]))
    return done.stdout.decode("utf-8", "replace")
