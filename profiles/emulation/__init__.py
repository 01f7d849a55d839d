"""The board's own runtime without the board: the real aarch64 ONNX Runtime under ``qemu-user``.

``userland`` fetches what runs there, ``guest`` is what runs, ``counter.c`` counts what was executed, ``model`` turns
counts into milliseconds. The package is not called as the function :func:`edgekd.profiles.emulate` is, because a
package that was imported hides a function of its name.
"""
