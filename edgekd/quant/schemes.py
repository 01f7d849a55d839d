"""Which integers a runtime wants. The activation type alone decides whether int8 pays (measured: an
ONNX Runtime resnet18 is 4.2x faster with uint8 activations and 1.8x with int8 ones on x86), so a scheme
belongs to a runtime, and one trained student is written once per scheme."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.errors import DeviceError, fault, nearest


@dataclass(frozen=True)
class QuantScheme:
    """Weights are always symmetric per output channel (zero point 0: anything else destroys the zeros
    of a 2:4 mask in the integer tensor). Activations are per tensor.

    Attributes:
        activation_min, activation_max: the integer range of activations.
        symmetric: activations have zero point 0 and signed integers.
        weight_max: weights use ``-weight_max .. weight_max``.
        quantize_bias: biases are int32 with scale ``input scale * weight scale``.
    """

    name: str
    activation_min: int
    activation_max: int
    symmetric: bool
    weight_max: int
    quantize_bias: bool


SCHEMES: dict[str, QuantScheme] = {
    scheme.name: scheme
    for scheme in (
        # ONNX Runtime on x86 with VNNI and on Arm: everything fuses with uint8 activations.
        QuantScheme("u8s8", 0, 255, symmetric=False, weight_max=127, quantize_bias=True),
        # x86 without VNNI adds two uint8 x int8 products in int16, which saturates: 7-bit weights do not.
        QuantScheme("u8s8-reduce-range", 0, 255, symmetric=False, weight_max=63, quantize_bias=True),
        # TensorRT: symmetric int8, zero point 0, float bias.
        QuantScheme("s8s8", -128, 127, symmetric=True, weight_max=127, quantize_bias=False),
    )
}


def get_scheme(name: str) -> QuantScheme:
    if name not in SCHEMES:
        raise DeviceError(
            fault("scheme", "unknown quantization scheme", got=name, fix=nearest(name, SCHEMES))
        )
    return SCHEMES[name]
