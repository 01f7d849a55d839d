"""How fast an ONNX file is: measured, and by which statistics. Never imports torch."""
