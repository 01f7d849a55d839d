"""What a board's description is made of: figures, power modes, JetPacks, what each runtime can do there."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgekd.device_facts import unit_problem

RUNTIMES = ("onnxruntime", "tensorrt", "tflite", "ncnn")
RuntimeName = Literal["onnxruntime", "tensorrt", "tflite", "ncnn"]
_VERSION = r"^\d+(\.\d+)*$"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Fact(Strict):
    """One figure about a board. ``unit`` must be written, and may be empty for what has none."""

    key: str = Field(min_length=1)
    value: bool | int | float | str
    unit: str
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _in_its_unit(self) -> Fact:
        if problem := unit_problem(self.key, self.value, self.unit):
            raise ValueError(problem)
        return self


class PowerMode(Strict):
    """One ``nvpmodel`` mode: what is switched on and how fast it may run. None = not known.

    Attributes:
        name: as ``nvpmodel -q`` prints it.
        watts: the power budget; None where the mode has no limit.
        cpu_cores, cpu_clock_ghz: of the first cluster; ``cpu_cores_2`` and ``cpu_clock_2_ghz`` of the second.
        cuda_cores: switched on, where the mode switches some off.
        dla_cores: switched on.
        default: the mode that the board boots into.
    """

    name: str = Field(min_length=1)
    watts: float | None = Field(default=None, gt=0)
    cpu_cores: int = Field(ge=0)
    cpu_clock_ghz: float = Field(gt=0, lt=10)
    cpu_cores_2: int | None = Field(default=None, ge=0)
    cpu_clock_2_ghz: float | None = Field(default=None, gt=0, lt=10)
    cuda_cores: int | None = Field(default=None, gt=0)
    gpu_clock_mhz: float | None = Field(default=None, gt=0)
    memory_clock_mhz: float | None = Field(default=None, gt=0)
    dla_cores: int | None = Field(default=None, ge=0)
    dla_clock_mhz: float | None = Field(default=None, gt=0)
    default: bool = False
    source: str = Field(min_length=1)


class JetPack(Strict):
    """One release of NVIDIA's system for Jetson, with the runtimes that belong to it.

    Attributes:
        opset_max: the highest ONNX opset that its TensorRT reads.
        onnxruntime: the newest ONNX Runtime with a GPU wheel for it; None where there is none.
        wheel: where that wheel comes from.
        default: what edgekd takes when none is named.
    """

    version: str = Field(pattern=_VERSION)
    l4t: str = Field(min_length=1)
    tensorrt: str = Field(pattern=_VERSION)
    cuda: str = Field(pattern=_VERSION)
    opset_max: int = Field(ge=7)
    opset_export: int = Field(ge=7)
    python: str = Field(pattern=_VERSION)
    onnxruntime: str | None = Field(default=None, pattern=_VERSION)
    wheel: str = ""
    default: bool = False
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _writes_what_it_reads(self) -> JetPack:
        if self.opset_export > self.opset_max:
            raise ValueError("opset_export must not be above opset_max")
        return self


class RuntimeSupport(Strict):
    """What one runtime does on this board.

    Attributes:
        version: what the statements hold for.
        opset_min, opset_max: of ONNX files; None for a runtime with a format of its own.
        int8: how 8-bit products are formed. ``dot-product``: SDOT/UDOT or VNNI; ``widening``: through 16
            bits, exact; ``saturating``: through 16 bits, may clip; ``tensor-core``, ``dp4a``: on the GPU.
        fp16: arithmetic in fp16, not storage alone.
        sparse_2to4: what makes use of 2:4 weights.
    """

    name: RuntimeName
    version: str | None = Field(default=None, pattern=_VERSION)
    opset_min: int | None = Field(default=None, ge=1)
    opset_max: int | None = Field(default=None, ge=1)
    int8: Literal["none", "dot-product", "widening", "saturating", "tensor-core", "dp4a"]
    fp16: bool
    sparse_2to4: Literal["none", "gpu", "dla", "gpu+dla"] = "none"
    note: str = ""
    source: str = Field(min_length=1)


class ArmLevel(Strict):
    """Which Arm instructions the cores have, so which wheels run and which kernels are chosen.

    Attributes:
        wheel: the platform tag and the operating system that the runtimes' wheels need.
    """

    level: Literal["8.0-A", "8.1-A", "8.2-A", "8.4-A", "8.6-A", "9.0-A", "9.2-A"]
    dotprod: bool
    fp16: bool
    i8mm: bool = False
    wheel: str = ""
    source: str = Field(min_length=1)


class Trouble(Strict):
    """Something known to go wrong on this board, and what to do."""

    text: str = Field(min_length=1)
    source: str = Field(min_length=1)
