"""A device file written in five minutes: name, architecture, cores, facts. The rest is the cautious choice."""

from __future__ import annotations

import pytest

from edgekd.device import load_device, parse_device

SHORT = """
name: odroid-x
arch: aarch64
cores: 6
facts:
  - {key: cpu_core, value: Cortex-A73, unit: '', source: data sheet}
  - {key: cpu_clock_max, value: 2.2, unit: GHz, source: data sheet}
"""


def test_four_keys_are_a_device():
    spec = parse_device(SHORT, where="x.yaml")
    assert (spec.title, spec.runtime, spec.scheme, spec.kernel_rule) == (
        "odroid-x",
        "onnxruntime",
        "u8s8",
        "arm",
    )
    assert spec.memory_bytes is None and not spec.sparse_2to4


@pytest.mark.parametrize(
    ("fact", "runtime", "scheme", "sparse"),
    [
        ("{key: gpu_arch, value: Ampere (CC 8.7), unit: '', source: s}", "tensorrt", "s8s8", True),
        ("{key: gpu_arch, value: Pascal (CC 6.2), unit: '', source: s}", "tensorrt", "s8s8", False),
        ("{key: cuda_cores, value: 128, unit: cores, source: s}", "tensorrt", "s8s8", False),
        ("{key: cpu_flags, value: avx2 avx512_vnni, unit: '', source: s}", "onnxruntime", "u8s8", False),
    ],
)
def test_facts_choose_the_runtime(fact, runtime, scheme, sparse):
    spec = parse_device(SHORT + f"  - {fact}\n", where="x.yaml")
    assert (spec.runtime, spec.scheme, spec.sparse_2to4) == (runtime, scheme, sparse)
    shipped = load_device("jetson-orin-nano" if runtime == "tensorrt" else "raspberry-pi-4b")
    assert spec.opset_export <= shipped.opset_export


def test_an_x86_without_vnni_gets_weights_that_cannot_overflow():
    text = SHORT.replace("aarch64", "x86_64")
    assert parse_device(text, where="x.yaml").scheme == "u8s8-reduce-range"


def test_what_is_written_stays():
    text = SHORT + "runtime: onnxruntime\nopset_max: 15\nruntime_version: '1.12'\n"
    spec = parse_device(text, where="x.yaml")
    assert (spec.opset_max, spec.opset_export, spec.runtime_version) == (15, 15, "1.12")


def test_add_says_what_was_assumed(edgekd, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "x.yaml").write_text(SHORT)
    said = edgekd("devices", "add", tmp_path / "x.yaml").out
    assert "assumed" in said and "runtime onnxruntime" in said and "cores" not in said
