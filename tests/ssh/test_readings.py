"""What boards' programs print, as numbers. The lines are documented or recorded output, by board and JetPack."""

from __future__ import annotations

import pytest

from edgekd.profiles.cautions import CautionKind
from edgekd.profiles.ssh.health import board_health, health_cautions
from edgekd.profiles.ssh.readings import (
    clock_mhz,
    power_mode,
    rails_mw,
    temperature_c,
    throttle_reasons,
    throttled_bits,
    total_rails,
)

# Jetson Linux 32 (JetPack 4): no units. Nano, TX1, TX2, AGX Xavier as the Datadog agent's tests hold them.
NANO = (
    "RAM 613/3964MB (lfb 634x4MB) SWAP 0/1982MB (cached 0MB) CPU [2%@102,1%@102,0%@102,0%@102] EMC_FREQ 0% "
    "GR3D_FREQ 0% PLL@39C CPU@40.5C PMIC@100C GPU@41C AO@46C thermal@41C POM_5V_IN 900/943 POM_5V_GPU 0/0 "
    "POM_5V_CPU 123/123"
)
TX1 = (
    "RAM 1179/3983MB (lfb 120x4MB) IRAM 0/252kB(lfb 252kB) CPU [1%@102,4%@102,0%@102,0%@102] EMC_FREQ 7%@408 "
    "GR3D_FREQ 0%@76 APE 25 AO@42.5C CPU@37.5C GPU@39C PLL@37C Tdiode@42.75C PMIC@100C Tboard@42C thermal@38.5C "
    "VDD_IN 2532/2698 VDD_CPU 76/178 VDD_GPU 19/19"
)
TX2 = (
    "RAM 1345/7829MB (lfb 1290x4MB) SWAP 0/512MB (cached 0MB) CPU [2%@345,off,off,off,off,off] EMC_FREQ 13%@40 "
    "GR3D_FREQ 0%@114 APE 150 BCPU@35C MCPU@35C GPU@41C PLL@35C AO@35.5C Tboard@35C Tdiode@36C PMIC@100C "
    "thermal@35.5C VDD_IN 2003/2658 VDD_CPU 320/518 VDD_GPU 400/735 VDD_SOC 400/415 VDD_WIFI 0/0 VDD_DDR 240/348"
)
AGX_XAVIER = (
    "RAM 1903/15692MB (lfb 3251x4MB) CPU [1%@1190,1%@1190,2%@1190,0%@1190,0%@1190,0%@1190,0%@1190,0%@1190] "
    "EMC_FREQ 0% GR3D_FREQ 0% AO@32.5C GPU@32C Tboard@32C Tdiode@34.75C AUX@31.5C CPU@33.5C thermal@32.9C "
    "PMIC@100C GPU 0/0 CPU 216/216 SOC 864/864 CV 0/0 VDDRQ 144/144 SYS5V 1889/1889"
)
XAVIER_NX = (
    "RAM 3347/7467MB (lfb 896x4MB) SWAP 0/3733MB (cached 0MB) CPU [21%@1190,19%@1190,18%@1190,21%@1190,20%@1190,"
    "20%@1190] EMC_FREQ 13%@2133 GR3D_FREQ 61% APE 150 MTS fg 0% bg 0% NVDLA0 OFF NVDLA1 OFF PVA0 OFF VIC 0%@115 "
    "MSENC OFF VDD_IN 5336/4970 VDD_CPU_GPU_CV 2617/2336 VDD_SOC 1478/1318 CV0@-256C GPU@49.2C PMIC@50.0C"
)
# Jetson Linux 35 (JetPack 5): milliwatts with their unit.
AGX_ORIN = (
    "RAM 5678/30536MB (lfb 5843x4MB) SWAP 0/15268MB (cached 0MB) CPU [100%@2201,100%@2201,off,off] EMC_FREQ 1%@2133 "
    "GR3D_FREQ 14%@[407,407] VIC_FREQ 115 NVDLA0_FREQ @1600 APE 174 CV0@73.625C CPU@77.281C Tboard@62C SOC2@70C "
    "Tdiode@62.25C tj@77.281C VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV 14312mW/12415mW VIN_SYS_5V0 4968mW/5048mW "
    "VDDQ_VDD2_1V8AO 1091mW/1091mW"
)
# Jetson Linux 36 (JetPack 6): the date before, temperatures in lower case.
ORIN_NANO = (
    "11-14-2024 12:34:56 RAM 2505/7620MB (lfb 2x4MB) SWAP 0/3810MB (cached 0MB) CPU [2%@1510,0%@1510,0%@1510,0%@1510,"
    "0%@729,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 0%@[305] cpu@47.968C soc0@46.906C gpu@46.343C tj@47.968C "
    "VDD_IN 4680mW/4680mW VDD_CPU_GPU_CV 480mW/480mW VDD_SOC 1440mW/1440mW"
)


@pytest.mark.parametrize(
    ("line", "rails", "total"),
    [
        (NANO, {"POM_5V_IN": 900, "POM_5V_GPU": 0, "POM_5V_CPU": 123}, 900),
        (TX1, {"VDD_IN": 2532, "VDD_CPU": 76, "VDD_GPU": 19}, 2532),
        (
            TX2,
            {"VDD_IN": 2003, "VDD_CPU": 320, "VDD_GPU": 400, "VDD_SOC": 400, "VDD_WIFI": 0, "VDD_DDR": 240},
            2003,
        ),
        (XAVIER_NX, {"VDD_IN": 5336, "VDD_CPU_GPU_CV": 2617, "VDD_SOC": 1478}, 5336),
        (AGX_XAVIER, {"GPU": 0, "CPU": 216, "SOC": 864, "CV": 0, "VDDRQ": 144, "SYS5V": 1889}, 3113),
        (
            AGX_ORIN,
            {"VDD_GPU_SOC": 3150, "VDD_CPU_CV": 14312, "VIN_SYS_5V0": 4968, "VDDQ_VDD2_1V8AO": 1091},
            22430,
        ),
        (ORIN_NANO, {"VDD_IN": 4680, "VDD_CPU_GPU_CV": 480, "VDD_SOC": 1440}, 4680),
    ],
    ids=["nano", "tx1", "tx2", "xavier-nx", "agx-xavier", "agx-orin", "orin-nano"],
)
def test_power_rails(line: str, rails: dict[str, int], total: int) -> None:
    assert rails_mw(line) == rails
    assert sum(rails[name] for name in total_rails(rails)) == total


@pytest.mark.parametrize("line", ["", "tegrastats: command not found", "RAM 1/2MB SWAP 3/4MB", "VDD_IN x/y"])
def test_no_rails(line: str) -> None:
    assert rails_mw(line) == {}
    assert total_rails({"VDD_CPU": 1}) == ()


@pytest.mark.parametrize(
    ("told", "bits"),
    [("throttled=0x0\n", 0), ("throttled=0x50005", 0x50005), ("throttled=0xe0008", 0xE0008),
     ("VCHI initialization failed", None), ("", None), ("throttled=", None)],
)  # fmt: skip
def test_throttled_bits(told: str, bits: int | None) -> None:
    assert throttled_bits(told) == bits


@pytest.mark.parametrize(
    ("before", "later", "reasons"),
    [
        (0, [0, 0], []),
        (0x50000, [0x50000], []),  # long ago
        (0, [0x50005, 0x50000], ["the supply voltage is too low", "it is throttled"]),
        (0, [0x20000], ["the clock is capped"]),  # between two looks: only the memory since boot tells
        (0x20000, [0x20002], ["the clock is capped"]),
        (0, [0x80008], ["it is at its soft temperature limit"]),
        (0x50005, [0x50000], []),  # before the rounds
    ],
)
def test_what_slowed_the_board(before: int, later: list[int], reasons: list[str]) -> None:
    assert throttle_reasons(before, later) == reasons


def test_temperature_clock_and_mode() -> None:
    assert temperature_c("temp=42.8'C\n") == 42.8
    assert temperature_c('error=1 error_msg="Command not registered"') is None
    assert clock_mhz("frequency(48)=1500345728\n") == pytest.approx(1500.3, abs=0.1)
    assert clock_mhz("frequency(0)=2400033792\n") == pytest.approx(2400.0, abs=0.1)
    assert clock_mhz("") is None
    assert power_mode("NV Power Mode: MAXN\n0\n") == "MAXN"
    assert (
        power_mode("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W_6CORE\n2\n") == "MODE_15W_6CORE"
    )
    assert power_mode("NV Fan Mode:quiet\nNV Power Mode: 25W\n1\n") == "25W"
    assert power_mode("NV Power Mode: \x1b[2J\n") is None
    assert power_mode("NVPM ERROR: Error opening /var/lib/nvpmodel/status") is None


def test_energy_is_power_times_time() -> None:
    # 4680 mW during 20 ms are 93.6 mJ.
    health = board_health([{"nvpmodel -q": "NV Power Mode: 15W\n0\n"}], [ORIN_NANO] * 5, mean_ms=20.0)
    assert (health.power_mw, health.power_rails, health.power_samples) == (4680.0, ("VDD_IN",), 5)
    assert health.energy_mj == pytest.approx(93.6)
    assert health.rails_mw["VDD_SOC"] == 1440
    assert health.power_mode == "15W"
    # Four lines are no mean.
    assert board_health([], [ORIN_NANO] * 4, mean_ms=20.0).energy_mj is None


def look(bits: str, temperature: str = "temp=60.0'C") -> dict[str, str]:
    return {"vcgencmd get_throttled": f"throttled={bits}", "vcgencmd measure_temp": temperature}


def test_a_throttled_run_is_called_throttled() -> None:
    health = board_health([look("0x0"), look("0xe0006", "temp=84.1'C"), look("0xe0000")], [], 1.0)
    assert health.throttled_bits == (0, 0xE0006, 0xE0000)
    (caution,) = health_cautions(health)
    assert caution.kind is CautionKind.THROTTLED
    assert str(caution) == (
        "the board was throttled meanwhile (get_throttled 0xe0000, 84 °C): the clock is capped, it is throttled, "
        "it is at its soft temperature limit; cool it, or give it a better power supply, and measure again"
    )


def test_a_weak_supply_is_called_that() -> None:
    (caution,) = health_cautions(board_health([look("0x0"), look("0x10001")], [], 1.0))
    assert str(caution).startswith("the board's supply was weak meanwhile (get_throttled 0x10001, 60 °C)")


def test_a_board_that_was_throttled_before_is_not_blamed() -> None:
    assert health_cautions(board_health([look("0x50005"), look("0x50000")], [], 1.0)) == []
    assert health_cautions(board_health([], [], 1.0)) == []
