#!/usr/bin/env python3
"""Classify images with the model in this folder.

    python3 run.py photo.jpg
    python3 run.py *.jpg --top 3 --json

Needs onnxruntime, numpy and Pillow, nothing else; Python 3.8 or later. Each line: label, probability, file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # a deployed model tells nobody that it ran

import numpy as np
import onnxruntime
from PIL import Image

HERE = Path(__file__).resolve().parent
DEEP_MODES = ("I", "F")  # more than 8 bits a channel
ORIENTATION = 274  # EXIF's tag: how the camera was held
UPRIGHT = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
           7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip


def load_image(path: str, preprocess: dict[str, Any]) -> np.ndarray:
    """An image file to float32 (channels, height, width), exactly as the model was trained and tested."""
    with Image.open(path) as image:
        image.load()
    if image.mode.split(";")[0] in DEEP_MODES:
        raise ValueError(f"deeper than 8 bits a channel (mode {image.mode}): convert it to 8 bits")
    pixels = np.asarray(resize_crop(upright(image), preprocess))
    if preprocess["channels"] == 1:
        pixels = pixels[..., None]
    scaled = pixels.astype(np.float32) / np.float32(255)
    mean, std = np.asarray(preprocess["mean"], np.float32), np.asarray(preprocess["std"], np.float32)
    return np.ascontiguousarray(np.moveaxis((scaled - mean) / std, -1, -3))


def upright(image: Image.Image) -> Image.Image:
    try:
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a picture is no worse for a damaged note beside it
        turn = None
    # Before Pillow 9.1 the turns stood in the module itself.
    return image.transpose(getattr(getattr(Image, "Transpose", Image), turn)) if turn else image


def resize_crop(image: Image.Image, preprocess: dict[str, Any]) -> Image.Image:
    """To L or RGB, the short side resized, the centre cut out."""
    height, width = preprocess["height"], preprocess["width"]
    share = preprocess["crop_pct"]
    image = image.convert("L" if preprocess["channels"] == 1 else "RGB")
    # Before Pillow 9.1 the filters stood in the module itself.
    resample = getattr(getattr(Image, "Resampling", Image), preprocess["interpolation"].upper())
    if preprocess["crop_mode"] == "squash":
        return image.resize((width, height), resample)
    if image.size == (width, height) and share == 1.0:
        return image
    if height == width:
        short = math.floor(height / share)
        if image.width <= image.height:
            size = (short, int(short * image.height / image.width))
        else:
            size = (int(short * image.width / image.height), short)
    else:
        scale = max(math.floor(height / share) / image.height, math.floor(width / share) / image.width)
        size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    if image.size != size:
        image = image.resize(size, resample)
    left = round((image.width - width) / 2.0)
    top = round((image.height - height) / 2.0)
    return image.crop((left, top, left + width, top + height))


def open_session(manifest: dict[str, Any], threads: int) -> onnxruntime.InferenceSession:
    """The runtime's session: on a TensorRT board its own provider where it is installed, else the CPU."""
    wanted = ["CPUExecutionProvider"]
    if manifest["runtime"] == "tensorrt":
        wanted = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    installed = onnxruntime.get_available_providers()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")  # each costs a hundred cycles
    if threads:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        str(HERE / manifest["model"]["file"]),
        options,
        providers=[name for name in wanted if name in installed],
    )


def probabilities(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits.astype(np.float64) - logits.max())
    return exponents / exponents.sum()


def classify(
    session: onnxruntime.InferenceSession, image: np.ndarray, labels: list[str], top: int
) -> list[tuple[str, float]]:
    """The ``top`` most probable (label, probability), best first."""
    (logits,) = session.run(None, {session.get_inputs()[0].name: image[None]})
    chances = probabilities(logits[0])
    return [(labels[k], float(chances[k])) for k in np.argsort(-chances, kind="stable")[:top]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Classify images with the model in this folder.")
    parser.add_argument("input", nargs="+", help="image files")
    parser.add_argument(
        "--top", type=int, default=1, metavar="K", help="the K most probable labels (default 1)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON list instead of lines")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="threads; 0: the runtime's choice"
    )
    options = parser.parse_args(arguments)
    if options.top < 1 or options.threads < 0:
        parser.error("--top must be at least 1 and --threads at least 0")
    try:
        manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
        labels = json.loads((HERE / "labels.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{HERE}: copy this folder as a whole: {error}", file=sys.stderr)
        return 1
    try:
        session = open_session(manifest, options.threads)
    except Exception as error:  # the runtime's exceptions derive from Exception alone
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"{manifest['model']['file']}: cannot be loaded: {reason}", file=sys.stderr)
        return 1
    answers, failed = [], 0
    for path in options.input:
        try:
            image = load_image(path, manifest["preprocess"])
        except Exception as error:  # arbitrary bytes raise arbitrary things inside the decoders
            reason = getattr(error, "strerror", None) or f"not an image that can be read: {error}"
            print(f"{path}: {reason}".splitlines()[0], file=sys.stderr)
            failed = 2
            continue
        best = classify(session, image, labels, options.top)
        if options.json:
            predictions = [{"label": label, "probability": chance} for label, chance in best]
            answers.append({"input": str(path), "predictions": predictions})
        else:
            for label, chance in best:
                print(f"{label}\t{chance:.4f}\t{path}")
    if options.json:
        print(json.dumps(answers, ensure_ascii=False, indent=2))
    return failed


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
