"""OpenVINO behind the protocol of ``edgekd.profiles.worker``, so that its rounds interleave with the others'.

Runs inside the peer's environment. ``openvino_worker.py`` serves requests, one JSON object a line;
``openvino_worker.py MODEL INPUTS.npy OUTPUTS.npy`` writes the first output for all inputs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from job_io import peak_memory


def compiled(path: Path, threads: int) -> Any:
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    # bf16 where the processor has it would be another precision than the one compared.
    return openvino.Core().compile_model(path, "CPU", {**options, "INFERENCE_PRECISION_HINT": "f32"})


def opened(path: Path, settings: dict[str, Any]) -> tuple[Any, dict[str, np.ndarray], dict[str, Any]]:
    start = time.perf_counter()
    model = compiled(path, settings["threads"])
    loaded = time.perf_counter()
    (port,) = model.inputs
    shape = [
        dimension.get_length() if dimension.is_static else settings["batch"]
        for dimension in port.get_partial_shape()
    ]
    feed = {port.any_name: np.random.default_rng(settings["seed"]).standard_normal(shape, np.float32)}
    request = model.create_infer_request()
    before = time.perf_counter()
    request.infer(feed)
    facts = {
        "runtime": "openvino", "runtime_version": openvino.__version__.split("-")[0],
        "load_ms": (loaded - start) * 1e3, "first_inference_ms": (time.perf_counter() - before) * 1e3,
        "base_memory_bytes": 0,
    }  # fmt: skip
    return request, feed, facts


def timed_round(request: Any, feed: dict[str, np.ndarray], settings: dict[str, Any]) -> list[float]:
    """As ``edgekd.profiles.timing.timed_round``: the same warm-up, runs and seconds."""
    start, limit = time.perf_counter(), settings["max_seconds_per_round"]
    for done in range(settings["warmup"]):
        if done and time.perf_counter() - start >= limit / 4:
            break
        request.infer(feed)
    samples: list[float] = []
    while len(samples) < settings["runs"]:
        before = time.perf_counter()
        if len(samples) >= 2 and before - start >= limit:
            break
        request.infer(feed)
        samples.append((time.perf_counter() - before) * 1e3)
    return samples


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    cpu_start = time.process_time()
    request: Any = None
    feed: dict[str, np.ndarray] = {}
    settings: dict[str, Any] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        answer: Any
        try:
            if asked["do"] == "open":
                settings = asked["settings"]
                request, feed, answer = opened(Path(asked["path"]), settings)
            elif asked["do"] == "round":
                answer = timed_round(request, feed, settings)
            else:
                answer = {"peak_memory_bytes": peak_memory(), "cpu_seconds": time.process_time() - cpu_start}
            reply = {"ok": answer}
        except Exception as error:
            reply = {"error": {"type": "EdgeKDError", "message": f"OpenVINO: {error}"}}
        print(json.dumps(reply), file=answers, flush=True)


def write_outputs(model: Path, inputs: Path, outputs: Path) -> None:
    request = compiled(model, 1).create_infer_request()
    rows = [request.infer([sample[None]])[0].copy() for sample in np.load(inputs)]
    np.save(outputs, np.concatenate(rows).astype(np.float32))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        write_outputs(*map(Path, sys.argv[1:]))
    else:
        serve()
