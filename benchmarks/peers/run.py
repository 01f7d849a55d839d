"""The harness: models times peers to rows, a table and a picture."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.bounded import one_line
from benchmarks.peers.catalogue import Catalogue, Peer, read_catalogue
from benchmarks.peers.environment import OWN
from benchmarks.peers.images import Photos, open_photos
from benchmarks.peers.judge import beside_edgekd, judge
from benchmarks.peers.kept import job_key, recall, remember
from benchmarks.peers.launch import MODEL_FILES, quantize, set_up
from benchmarks.peers.row import Result, Row
from benchmarks.peers.subject import Subject, prepare_subject, write_job
from benchmarks.peers.timing import FP32, Timed, time_rows
from benchmarks.peers.trained import Part, labelled
from benchmarks.peers.written import write_result
from edgekd.errors import EdgeKDError


@dataclass(frozen=True)
class Options:
    """See ``--help``."""

    out: Path
    threads: int = 1
    calibration: int = 64
    comparison: int = 200
    rounds: int = 5
    runs: int = 20
    timeout_s: float = 900.0
    seed: int = 0
    prefix: tuple[str, ...] = ()
    keep: bool = False
    held_out: Part = "test"


def compare(
    models: list[str], peers: Mapping[str, Peer], catalogue: Catalogue, photos: Photos, options: Options
) -> Result:
    """Every peer on every model; what fails is a row that says why. Written anew after each model.

    Raises:
        EdgeKDError: a model is not known or cannot be exported.
    """
    result = Result(conditions=conditions(models, photos, options), models=[], rows=[])
    for name in models:
        say(f"{name}: export fp32")
        folder = options.out / "work" / name.replace(":", "-")
        subject = prepare_subject(
            name,
            folder,
            photos,
            calibration=options.calibration,
            comparison=options.comparison,
            seed=options.seed,
            held_out=options.held_out,
        )
        result.models.append(subject.facts())
        result.rows += compare_one(subject, peers, catalogue, options)
        write_result(result, options.out)
    return result


def compare_one(
    subject: Subject, peers: Mapping[str, Peer], catalogue: Catalogue, options: Options
) -> list[Row]:
    """The rows of one model: every peer writes its file, then all are measured together."""
    rows: list[Row] = []
    files: dict[str, Timed] = {}
    for name, peer in peers.items():
        row, found = produce(name, peer, subject, catalogue, options)
        files |= found
        say(f"{subject.name}: {peer.title}: {row.reason or row.status}")
        rows.append(row)
    rows = beside_edgekd(rows, subject)
    say(f"{subject.name}: measure {len(files)} files")
    try:
        return time_rows(
            rows, files, subject.fp32, subject.folder, threads=options.threads, rounds=options.rounds,
            runs=options.runs,
            prefix=options.prefix,
        )  # fmt: skip
    except EdgeKDError as error:
        say(f"{subject.name}: not measured: {error}")
        return [
            row.model_copy(update={"notes": [*row.notes, one_line(f"not measured: {error}")]}) for row in rows
        ]


def produce(
    name: str, peer: Peer, subject: Subject, catalogue: Catalogue, options: Options
) -> tuple[Row, dict[str, Timed]]:
    """One peer's file, judged; with it what there is to measure, by label."""
    row = Row(model=subject.name, peer=name, title=peer.title, runtime=peer.runtime)
    row, environment = set_up(peer, catalogue, row, timeout_s=options.timeout_s)
    if environment is None:
        return row, {}
    job, script = subject.folder / name, catalogue.scripts / f"{peer.script}.py"
    write_job(subject, job, peer.settings)
    key = job_key(job, script, environment)
    kept = recall(job, key, row) if options.keep and peer.environment != OWN else None
    if kept is None:
        row = quantize(
            peer, script, environment.python, job, row, threads=options.threads, timeout_s=options.timeout_s
        )
        remember(job, key, row)
    else:
        row = kept
    if row.status != "ok":
        return row, {}
    file = job / MODEL_FILES[peer.runtime]
    worker = None
    if peer.worker is not None:
        worker = (str(environment.python), str(catalogue.scripts / f"{peer.worker}.py"))
    row = judge(row, file, subject, pattern=peer.pattern, worker=worker)
    if row.status != "ok":
        return row, {}
    foreign = {f"{name} {FP32}": Timed(subject.fp32, worker)} if worker else {}
    return row, {name: Timed(file, worker), **foreign}


def conditions(models: list[str], photos: Photos, options: Options) -> dict[str, Any]:
    from edgekd.cpu import detect_cpu
    from edgekd.run_report import installed_versions

    cpu = detect_cpu()
    fashion = all(map(labelled, models))
    return {
        "cpu": cpu.title, "cores": cpu.cores, "vnni": cpu.has_vnni, "threads": options.threads,
        "versions": installed_versions(), "date": time.strftime("%Y-%m-%d"), "seed": options.seed,
        "photos": f"Fashion-MNIST, {options.held_out} split" if fashion else photos.source,
        "calibration": options.calibration, "comparison": options.comparison,
        "rounds": options.rounds, "runs": options.runs,
    }  # fmt: skip


def say(text: str) -> None:
    """Progress goes to standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--models", default="resnet18,mobilenetv2_100,vit_tiny_patch16_224",
                        help="with commas: timm names (random weights), lite0, lite2 (ImageNet weights), "
                        "fashion:residual, :efficientnet, :convnext, :mobilenetv3 (trained, with labels)")  # fmt: skip
    parser.add_argument("--peers", default="all", help="names from --list, with commas")
    parser.add_argument("--photos", type=Path, help="folder of images; default: scikit-learn's two")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    parser.add_argument(
        "--keep",
        action="store_true",
        help="use what peers (not edgekd) wrote in --out for the same job before",
    )
    parser.add_argument("--list", action="store_true", help="list the peers and stop")
    parser.add_argument(
        "--timeout", type=float, default=900, help="seconds for each installation and each job"
    )
    parser.add_argument(
        "--prefix", default="", help="words before each measuring process, such as 'chrt -r 5'"
    )
    parser.add_argument("--held-out", choices=["validation", "test"], default="test",
                        help="what fashion: models are compared on; choices belong on validation")  # fmt: skip
    for name in ("threads", "calibration", "comparison", "rounds", "runs", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Options, name))
    asked = parser.parse_args(arguments)
    numbers = {name: getattr(asked, name)
               for name in ("threads", "calibration", "comparison", "rounds", "runs", "seed")}  # fmt: skip
    try:
        catalogue = read_catalogue()
        if asked.list:
            for name, peer in catalogue.peers.items():
                print(f"{name:24} {peer.title:40} {peer.environment}")
            return 0
        options = Options(
            out=asked.out,
            timeout_s=asked.timeout,
            prefix=tuple(asked.prefix.split()),
            keep=asked.keep,
            held_out=asked.held_out,
            **numbers,
        )
        models = [name.strip() for name in asked.models.split(",") if name.strip()]
        compare(models, catalogue.choose(asked.peers), catalogue, open_photos(asked.photos), options)
    except EdgeKDError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
