"""A stored tensor with its channels in another layout."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgekd.export.layouts import Layout


def spread(tensor: onnx.TensorProto, layout: Layout, axis: int, *, first: bool = False) -> None:
    """Put ``tensor``'s channels where ``layout`` has them; between them zeros, or the first channel's value."""
    values = numpy_helper.to_array(tensor)
    if -1 not in layout:
        return
    positions = [k for k, channel in enumerate(layout) if channel >= 0]
    assert len(positions) == values.shape[axis], (
        f"{tensor.name}: {values.shape} for {len(positions)} channels"
    )
    shape = [*values.shape]
    shape[axis] = len(layout)
    wide = np.full(shape, values.flat[0] if first else 0, values.dtype)
    wide[(slice(None),) * axis + (positions,)] = np.take(values, [c for c in layout if c >= 0], axis=axis)
    tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
