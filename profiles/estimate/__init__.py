"""How long an ONNX file takes on a device that is not at hand: a model of graph and hardware, with a known error."""
