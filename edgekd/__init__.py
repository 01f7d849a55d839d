"""edgekd: from a trained model and a folder of data to a device-ready ONNX model, with the evidence.

Importing this package imports nothing heavy: torch is only loaded by the rooms that train.
"""

__version__ = "0.1.0"
