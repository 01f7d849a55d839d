"""``edgekd devices``: what is printed, at both widths, and as JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from edgekd.cli.app import app
from edgekd.cli.device_tables import device_list, device_page
from edgekd.cpu import detect_cpu
from edgekd.device import list_devices, load_device
from edgekd.machine_speed import Speed, remember, speed_facts

FOLDER = Path(__file__).parents[2] / "devices"


def printed(renderable: Any, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["devices", *arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


@pytest.mark.parametrize(("width", "rk3588"), [
    (80, "rk3588 4xA76+4xA55 2.4/1.8 4 GB ORT 1.20 dot none"),
    (120, "rk3588 4x A76 + 4x A55 2.4/1.8 4 GB 34.1 ONNX Runtime 1.20 dot-product none"),
    (160, "rk3588 RK3588 boards (ROCK 5B, Orange Pi 5, Firefly) 4x A76 + 4x A55 2.4/1.8 4 GB 34.1 "
          "ONNX Runtime 1.20 dot-product none"),
])  # fmt: skip
def test_each_device_is_one_line_at_every_width(width: int, rk3588: str) -> None:
    names = [name for name in list_devices() if name != "cpu"]
    lines = printed(device_list([load_device(name) for name in names], width=width), width)
    assert [line.split()[0] for line in lines] == ["device", *names]
    assert " ".join(lines[-3].split()) == rk3588
    assert any(line.startswith("jetson-agx-orin") and line.endswith("gpu+dla") for line in lines)


def test_a_board_that_says_little_is_listed_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\ntitle: '[b]My[/b] board'\narch: aarch64\ncores: 4\nruntime: onnxruntime\nruntime_version: '1.22'\n"
        "opset_min: 7\nopset_max: 21\nopset_export: 17\nscheme: u8s8\nkernel_rule: arm\nint8: true\n"
        "sparse_2to4: false\nmemory_bytes: 1073741824\nfacts: []\n"
    )
    assert run("add", str(file)) == "mine: added; use it as --device mine\n"
    line = next(line for line in run("list").splitlines() if line.startswith("mine"))
    assert line.split() == ["mine", "[b]My[/b]", "board", "4x", "aarch64", "-", "1", "GB", "-", "ONNX", "Runtime",
                            "1.22", "yes", "none"]  # fmt: skip
    assert "[b]My[/b] board" in printed(device_page(load_device("mine")), 80)[0]


def test_a_page_groups_figures_and_numbers_their_sources() -> None:
    lines = printed(device_page(load_device("jetson-orin-nx-16gb")), 100)
    heads = [line for line in lines if line in (
        "Runtimes", "Power modes (* = set at start)", "JetPacks (* = taken; another: --device NAME@VERSION)",
        "Known trouble", "Processor", "Memory", "GPU", "DLA and NPU", "By power mode", "Other", "Sources",
    )]  # fmt: skip
    assert len(heads) == 11
    assert any(
        line.split() == ["15W", "*", "15", "4", "1.65", "612", "512", "3199", "614.4"] for line in lines
    )
    assert any(line.split()[:4] == ["6.2", "*", "36.4.3", "10.3"] for line in lines)
    numbers = next(line for line in lines if line.startswith("memcpy_1t ")).split()[-1]
    assert any(line.startswith(numbers) and "ThomasKaiser/sbc-bench" in line for line in lines)
    assert any(line.startswith("gpu_peak_fp32 ") and "derived: 2 x 1024 x 918 MHz" in line for line in lines)


@pytest.mark.parametrize("name", [path.stem for path in FOLDER.glob("*.yaml")])
def test_every_page_fits_80_columns(name: str) -> None:
    assert max(map(len, printed(device_page(load_device(name)), 80))) <= 80


def test_json_everywhere(tmp_path: Path) -> None:
    rows = json.loads(run("list", "--json", "-"))
    pi = next(row for row in rows if row["name"] == "raspberry-pi-5")
    assert (pi["int8"], pi["uses_2to4"], pi["cores"]) == ("dot-product", "none", "4x A76")
    assert json.loads(run("show", "jetson-nano@4.5.1", "--json", "-"))["runtime_version"] == "7.1.3"
    file = tmp_path / "board.yaml"
    file.write_text(load_device("rk3399").to_yaml().replace("name: rk3399", "name: my-rk"))
    assert json.loads(run("add", str(file), "--json", "-"))["name"] == "my-rk"
    found = json.loads(run("detect", "--no-speed", "--name", "here", "--json", "-"))
    assert (found["name"], found["cores"]) == ("here", load_device("cpu").cores)


def test_the_machine_at_hand_says_what_is_not_measured() -> None:
    result = CliRunner().invoke(app, ["devices", "show", "cpu"])
    assert "not measured yet: edgekd devices detect" in result.stderr
    remember(detect_cpu(), speed_facts(Speed(cores=2, copy_1core=7e9)))
    result = CliRunner().invoke(app, ["devices", "show", "cpu"])
    assert result.stderr == ""
    assert "memcpy_1t" in result.stdout and "measured: one process copies" in result.stdout


def test_what_detect_prints_can_be_added(tmp_path: Path) -> None:
    file = tmp_path / "here.yaml"
    file.write_text(run("detect", "--no-speed", "--name", "here"))
    run("add", str(file))
    assert load_device("here").arch == load_device("cpu").arch
    assert run("detect", "--no-speed", "--name", "kept", "--add") == ""
    assert load_device("kept").cores == load_device("cpu").cores


def test_a_wrong_file_of_ones_own_is_told_and_the_rest_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / "config/edgekd/devices"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("name: broken\n")
    result = CliRunner().invoke(app, ["devices", "list"])
    assert result.exit_code == 0
    assert "broken.yaml: " in result.stderr and "is missing" in result.stderr
    assert "raspberry-pi-5" in result.stdout and "broken" not in result.stdout
    run("detect", "--no-speed", "--json", "-")


def test_a_host_that_is_an_option_is_refused() -> None:
    result = CliRunner().invoke(app, ["devices", "detect", "--host=-oProxyCommand=true"])
    assert result.exit_code != 0
    assert "not a host name" in str(result.exception)
