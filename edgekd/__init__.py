"""edgekd: from a trained model and a folder of data to a device-ready ONNX model, with the evidence.

Importing this package imports nothing heavy: torch is only loaded by the rooms that train.
"""

import os

# ONNX Runtime from 1.29 on sends usage data from Linux, with an identifier that it writes into the home folder
# and a file in the temporary one. Not from here, unless the user has set the variable; it must be set before the
# runtime is imported (microsoft/onnxruntime, pull request 27379).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
