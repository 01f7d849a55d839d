"""What a board cannot load is refused: by the JetPack taken, the runtime asked for, opset and operator."""

from __future__ import annotations

import pytest

from edgekd.device import check_operators, check_opset, load_device
from edgekd.errors import DeviceError

CONVNET = ["Conv", "Relu", "Add", "GlobalAveragePool", "Gemm", "QuantizeLinear", "DequantizeLinear"]


def test_the_jetpack_named_decides() -> None:
    orin, old = load_device("jetson-agx-orin"), load_device("jetson-agx-orin@5.1.2")
    assert (old.name, old.runtime_version, old.opset_max, old.jetpack) == (
        "jetson-agx-orin",
        "8.5.2",
        17,
        "5.1.2",
    )
    check_opset(orin, 18)
    with pytest.raises(
        DeviceError,
        match=r"^device jetson-agx-orin: its TensorRT 8\.5\.2 of JetPack 5\.1\.2 cannot take the opset; got 18; "
        r"allowed: 9 to 17; export with opset 16; JetPack 6\.1 takes it: --device jetson-agx-orin@6\.1$",
    ):
        check_opset(old, 18)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "jetson-agx-orin@9.9",
            r"^device jetson-agx-orin: no such JetPack; got '9.9'; allowed: 5.1.2, 6.0, 6.1,",
        ),
        ("raspberry-pi-5@6.2", r"^device raspberry-pi-5: no such JetPack; got '6.2'; allowed: none"),
        (
            "jetson-agx-orion@6.2",
            r"^device: is unknown; got 'jetson-agx-orion@6.2'; did you mean 'jetson-agx-orin'",
        ),
    ],
)
def test_a_jetpack_that_the_board_has_not(name: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        load_device(name)


def test_another_runtime_than_the_boards_own() -> None:
    nano = load_device("jetson-nano")
    check_opset(nano, 16)
    with pytest.raises(
        DeviceError, match=r"its ONNX Runtime 1\.11\.0 cannot take the opset; got 16; allowed: 7 to 15"
    ):
        check_opset(nano, 16, runtime="onnxruntime")
    with pytest.raises(
        DeviceError, match=r"no such runtime there that reads ONNX files; got 'tflite'; allowed: tens"
    ):
        check_opset(nano, 13, runtime="tflite")
    with pytest.raises(DeviceError, match=r"got 'tensorrt'; allowed: onnxruntime"):
        check_opset(load_device("raspberry-pi-4b"), 13, runtime="tensorrt")


@pytest.mark.parametrize(
    "name", ["jetson-nano", "jetson-xavier-nx", "jetson-agx-orin", "jetson-agx-orin@7.2.1"]
)
def test_a_quantized_convolutional_net_loads_everywhere(name: str) -> None:
    check_operators(load_device(name), [*CONVNET, "EfficientNMS_TRT"])


def test_an_operator_that_tensorrt_lacks() -> None:
    xavier = load_device("jetson-xavier-nx")
    with pytest.raises(
        DeviceError,
        match=r"^device jetson-xavier-nx: its TensorRT 8\.5\.2 of JetPack 5\.1\.2 lacks an operator of the file; "
        r"got 'LayerNormalization, MatMulNBits'; export with opset 16, or replace it$",
    ):
        check_operators(xavier, [*CONVNET, "LayerNormalization", "MatMulNBits"])
    assert xavier.opset_export < 17  # the opset that has LayerNormalization
    with pytest.raises(DeviceError, match=r"JetPack 6\.0 has it: --device jetson-orin-nano@6\.0"):
        check_operators(load_device("jetson-orin-nano@5.1.2"), ["LayerNormalization"])
    check_operators(load_device("jetson-orin-nano"), ["LayerNormalization", "Gelu"])
    check_operators(load_device("raspberry-pi-4b"), ["MatMulNBits"])  # ONNX Runtime has its own operators


def test_a_release_between_those_listed_has_the_operators_of_the_one_before() -> None:
    with pytest.raises(
        DeviceError, match=r"TensorRT 10\.3 of JetPack 6\.2 lacks an operator.*; got 'Attention'"
    ):
        check_operators(load_device("jetson-agx-orin"), ["Attention"])
    check_operators(load_device("jetson-agx-orin@7.2.1"), ["Attention"])
    with pytest.raises(DeviceError, match="'Einsum'"):
        check_operators(load_device("jetson-nano@4.5.1"), ["Einsum"])
