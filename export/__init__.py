"""A trained module to ONNX files, one per runtime, and the checks that read them back."""
