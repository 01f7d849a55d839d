"""How long an ONNX file takes on a device that is not at hand: a model of graph and hardware, with a known error.

:func:`edgekd.profiles.estimate` is the way in. The package is not called as that function is, because a package that
was imported hides a function of its name.
"""
