"""What ``edgekd profile`` was asked, checked once: which options belong to which way of knowing a latency."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from edgekd.device import DeviceSpec, load_device
from edgekd.errors import DeviceError, UserInputError, fault
from edgekd.profiles.runtimes import RUNTIMES

# Runtimes that estimates know and that are measured under another name or not at all.
ESTIMATED_ALONE = {"tensorrt": ", or measure with --runtime trtexec or --provider tensorrt",
                   "tflite": ", or measure a .tflite file with --runtime litert", "ncnn": ""}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """The options of one call, as the command line has them."""

    models: tuple[Path, ...]
    devices: tuple[str, ...]
    host: str | None
    runtimes: tuple[str, ...]
    provider: str
    precision: str | None
    power_mode: str | None
    threads: int | None
    batches: tuple[int, ...]
    streams: tuple[int, ...]
    seconds: float | None
    target: float | None
    rounds: int
    runs: int
    warmup: int
    shape: tuple[int, ...] | None
    operators: bool
    raw: bool
    setup_venv: bool = False

    def labels(self) -> dict[str, Path]:
        """File names, or whole paths where two files have the same name; a file given twice has two labels."""
        names = [path.name for path in dict.fromkeys(self.models)]
        found: dict[str, Path] = {}
        for path in self.models:
            label = str(path) if names.count(path.name) > 1 else path.name
            again = sum(other == path for other in found.values())
            found[f"{label} ({again + 1})" if again else label] = path
        return found

    def specs(self) -> list[DeviceSpec]:
        """
        Raises:
            DeviceError: an unknown device or a wrong file.
        """
        return [load_device(name) for name in self.devices or ("cpu",)]

    def is_at_hand(self) -> bool:
        """Whether a clock can be put to the device: it is this machine, or a host was named."""
        return self.host is not None or not self.devices or self.devices == ("cpu",)

    def measured_device(self) -> str:
        """The one device that is measured: its name.

        Raises:
            DeviceError: it is not this machine.
            UserInputError: several devices, or options that only an estimate has.
        """
        self._refuse(
            {"--precision": self.precision, "--power-mode": self.power_mode}, "measures the file as it is"
        )
        for name in self.runtimes:
            if name in ESTIMATED_ALONE:
                raise UserInputError(
                    fault("--runtime", "is estimated, not measured", got=name, allowed=", ".join(RUNTIMES),
                          fix=f"add --method estimate{ESTIMATED_ALONE[name]}")
                )  # fmt: skip
        if self.host is not None and self.operators:
            raise UserInputError(
                fault("--operators", "the operators are profiled on this machine alone", got=f"--host {self.host}",
                      fix="leave it out, or run edgekd profile --operators on the board")
            )  # fmt: skip
        if len(self.devices) > 1:
            raise UserInputError(
                fault("--device", "one device is measured at a time", got=", ".join(self.devices),
                      fix="name one, or use --method estimate for several")
            )  # fmt: skip
        spec = self.specs()[0]
        if self.host is None and (spec.arch != platform.machine() or spec.runtime != "onnxruntime"):
            raise DeviceError(
                fault(f"--device {spec.name}", f"{spec.title} is not this machine ({platform.machine()})",
                      fix="measure it over ssh with --host USER@BOARD, or without the board with --method emulate "
                      "or --method estimate")
            )  # fmt: skip
        return spec.name

    def check(self, *, json: bool) -> None:
        """
        Raises:
            UserInputError: an option without the one that it belongs to.
        """
        if self.raw and not json:
            raise UserInputError(fault("--raw", "puts every sample into the JSON", fix="add --json FILE"))
        if self.setup_venv and self.host is None:
            raise UserInputError(
                fault("--setup-venv", "sets up a board over ssh", fix="name it: --host USER@BOARD")
            )

    def check_predicted(self, *, emulated: bool) -> None:
        """
        Raises:
            UserInputError: options that only a measurement has, or that the method cannot follow.
        """
        what = "emulated" if emulated else "estimated"
        self._refuse({"--host": self.host, "--seconds": self.seconds, "--target": self.target,
                      "--streams": next((count for count in self.streams if count != 1), None),
                      "--provider": self.provider if self.provider != "cpu" else None},
                     f"belongs to measuring; {what} latencies have no such option")  # fmt: skip
        if emulated:
            self._refuse({"--precision": self.precision, "--power-mode": self.power_mode,
                          "--runtime": next((r for r in self.runtimes if r != "onnxruntime"), None)},
                         "the emulated core runs the file in ONNX Runtime as it is")  # fmt: skip

    @staticmethod
    def _refuse(options: dict[str, object], why: str) -> None:
        for name, value in options.items():
            if value is not None:
                raise UserInputError(
                    fault(name, why, got=value, fix="leave it out, or choose another --method")
                )
