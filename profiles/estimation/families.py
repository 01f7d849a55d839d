"""Which family an operator without weights belongs to."""

from __future__ import annotations

from edgekd.profiles.estimation.operators import Family

_BY_FAMILY: dict[Family, str] = {
    "softmax": "Softmax LogSoftmax",
    "norm": "LayerNormalization InstanceNormalization GroupNormalization RMSNormalization LpNormalization "
    "MeanVarianceNormalization SimplifiedLayerNormalization SkipLayerNormalization "
    "SkipSimplifiedLayerNormalization GroupNorm SkipGroupNorm LRN",
    "elementwise": "Add Sub Mul Div Pow Sum Mean Max Min Abs Neg Sqrt Reciprocal Floor Ceil Round Sign Relu Clip "
    "LeakyRelu PRelu ThresholdedRelu Where Equal Greater GreaterOrEqual Less LessOrEqual Not And Or Xor Mod "
    "BatchNormalization IsNaN IsInf RotaryEmbedding BitShift",
    "activation-expensive": "Sigmoid HardSigmoid HardSwish Swish Silu Gelu FastGelu BiasGelu QuickGelu Mish Tanh Elu "
    "Selu Celu Softplus Softsign Erf Exp Log Sin Cos Tan Atan Asin Acos Sinh Cosh",
    "pool": "MaxPool AveragePool LpPool",
    "global-pool": "GlobalAveragePool GlobalMaxPool ReduceMean ReduceMax ReduceMin ReduceSum ReduceProd ReduceL1 "
    "ReduceL2 ReduceLogSumExp ReduceSumSquare ArgMax ArgMin CumSum",
    "resize": "Resize Upsample",
    "concat": "Concat",
    "copy": "Slice Split Pad Gather GatherElements GatherND Tile Expand Cast CastLike Trilu ScatterND "
    "ScatterElements ReverseSequence",
    "transpose": "Transpose DepthToSpace SpaceToDepth Col2Im",
    "reshape": "Reshape Flatten Squeeze Unsqueeze Shape Size",
    "recurrent": "LSTM GRU RNN",
    "quantize": "QuantizeLinear DynamicQuantizeLinear",
    "dequantize": "DequantizeLinear",
}
_FAMILY: dict[str, Family] = {op: family for family, names in _BY_FAMILY.items() for op in names.split()}


def family_of(op: str) -> Family:
    return _FAMILY.get(op, "other")


def convolution_family(
    *,
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    groups: int,
    channels_in: int,
    positions: int,
) -> Family:
    """Of a convolution that is not transposed.

    Args:
        positions: at which the window is put, of one sample.
    """
    if groups > 1:
        return "conv-depthwise" if groups == channels_in else "conv-grouped"
    if kernel == (1, 1):
        return "gemm" if positions == 1 else "conv-1x1"
    if channels_in <= 4:
        return "conv-first"
    if kernel == (3, 3) and stride == 1 and dilation == 1:
        return "conv-dense-3x3"
    return "conv-dense-other"


def product_family(*, rows: int, batch: int) -> Family:
    """Of a product with a weight."""
    return "gemm" if rows <= batch else "matmul-tokens"
