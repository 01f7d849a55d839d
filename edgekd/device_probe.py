"""What a machine says of itself, gathered by one script that needs nothing but Python 3.6 or newer.

The file is read as text and run in a process of its own, here or on a board over SSH. It prints one JSON
object: ``files`` (path to text), ``commands`` (name to output), ``python`` and, asked for, ``speed``.
:func:`edgekd.device_detect.describe` makes a device of it.
"""

import glob
import json
import os
import platform
import socket
import struct
import subprocess
import sys
import time

FILES = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/device-tree/model",
    "/proc/device-tree/compatible",
    "/etc/nv_tegra_release",
    "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq",
    "/sys/devices/system/cpu/cpu[0-9]*/cache/index[0-9]*/level",
    "/sys/devices/system/cpu/cpu[0-9]*/cache/index[0-9]*/type",
    "/sys/devices/system/cpu/cpu[0-9]*/cache/index[0-9]*/size",
    "/sys/devices/system/cpu/cpu[0-9]*/cache/index[0-9]*/shared_cpu_list",
    "/sys/class/devfreq/*/available_frequencies",
)
COMMANDS = {
    "nvpmodel": ["nvpmodel", "-q"],
    "tensorrt": ["dpkg-query", "-W", "-f", "${Version}", "libnvinfer-bin"],
}
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "tensorrt", "numpy")
MOST_CHARACTERS = 200000
SECONDS = 0.25
MEGABYTE = 1 << 20


def read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(MOST_CHARACTERS).decode("utf-8", "replace")
    except OSError:
        return ""


def output(command: "list[str]") -> str:
    """Standard output of a command; nothing where it is missing, fails or hangs."""
    paths = [os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    environment = dict(os.environ, PATH=":".join(paths), LC_ALL="C")
    with open(os.devnull) as nothing:
        try:
            process = subprocess.Popen(  # noqa: S603  (fixed argument lists)
                command, stdin=nothing, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )
        except OSError:
            return ""
        try:
            text = process.communicate(timeout=10)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return ""
    return text[:MOST_CHARACTERS].decode("utf-8", "replace") if process.returncode == 0 else ""


def packages() -> "dict[str, str]":
    """Installed versions, without importing what is heavy."""
    try:
        from importlib.metadata import PackageNotFoundError, version
    except ImportError:  # Python below 3.8
        return {}
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def buffer_bytes(count: int) -> int:
    """For one of ``count`` copying processes: beyond the last cache if memory allows, at most an eighth of it."""
    sizes = [read(path).strip() for path in glob.glob("/sys/devices/system/cpu/cpu0/cache/index*/size")]
    caches = [
        int(size[:-1]) * {"K": 1024, "M": MEGABYTE}.get(size[-1], 0) for size in sizes if size[:-1].isdigit()
    ]
    free = [line.split()[1] for line in read("/proc/meminfo").splitlines() if line.startswith("MemAvailable")]
    room = int(free[0]) * 1024 // 8 // count // 2 if free else 32 * MEGABYTE
    return max(MEGABYTE, min(max(32 * MEGABYTE, 2 * max(caches or [0])), room, 64 * MEGABYTE))


def rate(work: "object", amount: float, start: float) -> float:
    """``amount`` over the time of a round that a quarter of all rounds stay below: short rounds, so that
    those which other programs interrupted do not count."""
    work()  # type: ignore[operator]
    while time.time() < start:
        pass
    begin = now = time.perf_counter()
    rounds = []  # type: list[float]
    while now - begin < SECONDS or len(rounds) < 4:
        work()  # type: ignore[operator]
        rounds.append(time.perf_counter() - now)
        now += rounds[-1]
    return amount / sorted(rounds)[len(rounds) // 4]


def copied(size: int, start: float) -> float:
    """Bytes a second that one core copies between two buffers; each byte is read once and written once."""
    source, target = bytearray(os.urandom(4096) * (size // 4096)), bytearray(size // 4096 * 4096)
    target[:] = source  # pages are there before the clock runs
    part = min(4 * MEGABYTE, len(source))
    pairs = [
        (memoryview(target)[at : at + part], memoryview(source)[at : at + part])
        for at in range(0, len(source) - part + 1, part)
    ]
    turn = iter(pairs * 100000)

    def copy() -> None:
        to, of = next(turn)
        to[:] = of

    return rate(copy, part, start)


def multiplied(side: int, start: float) -> float:
    """fp32 operations a second of one core in a product of two matrices, by numpy's BLAS."""
    import numpy

    a = numpy.ones((side, side), numpy.float32)
    b, c = a.copy(), a.copy()
    return rate(lambda: numpy.dot(a, b, c), 2.0 * side**3, start)


def together(work: "object", count: int, size: int) -> float:
    """Sum over ``count`` processes that start at the same moment; 0 if one of them fails."""
    start = time.time() + 0.2
    children = []
    for _ in range(count):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, struct.pack("d", work(size, start)))  # type: ignore[operator]
                os._exit(0)
            finally:
                os._exit(1)
        os.close(writer)
        children.append((child, reader))
    rates = []
    for child, reader in children:
        data = os.read(reader, 8)
        os.close(reader)
        os.waitpid(child, 0)
        rates.append(struct.unpack("d", data)[0] if len(data) == 8 else 0.0)
    return sum(rates) if all(rates) else 0.0


def speed() -> "dict[str, float]":
    """Rates of one core and of all: bytes copied, fp32 operations. What cannot be measured is 0."""
    # Each process is one core: a BLAS with threads of its own would count them twice.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    count = cores()
    result = {"cores": float(count), "load": float((read("/proc/loadavg").split() or ["0"])[0])}
    try:
        __import__("numpy")  # once, before the processes that need it are forked
    except ImportError:
        sys.stderr.write("no numpy: the rate of fp32 operations is not measured\n")
    for key, number in (("1core", 1), ("all", count)):
        size = buffer_bytes(number)
        result["copy_" + key] = together(copied, number, size)
        result["copy_buffer_" + key] = float(size)
        result["flops_" + key] = together(multiplied, number, 512)
    return result


def gather(with_speed: bool) -> "dict[str, object]":
    found = [path for pattern in FILES for path in sorted(glob.glob(pattern))]
    report = {
        "schema": 1,
        "machine": platform.machine(),
        "bits": struct.calcsize("P") * 8,
        "host": socket.gethostname(),
        "cores": cores(),
        "python": platform.python_version(),
        "packages": packages(),
        "files": {path: read(path) for path in found},
        "commands": {name: output(command) for name, command in COMMANDS.items()},
    }  # type: dict[str, object]
    if with_speed and hasattr(os, "fork"):
        report["speed"] = speed()
    return report


if __name__ == "__main__":
    # Run from text there are no arguments of one's own: the caller sets SPEED in front of it.
    sys.stdout.write(json.dumps(gather(bool(globals().get("SPEED", False)))) + "\n")
