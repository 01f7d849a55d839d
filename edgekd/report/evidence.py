"""The tables of proof: what was read back from the files, what was left out, how the run was made."""

from __future__ import annotations

from itertools import groupby, takewhile
from typing import Any

from edgekd.report.facts import device_name
from edgekd.report.format import (
    MISSING,
    byte_count,
    clean,
    duration,
    milliseconds,
    percent,
    plural,
    ratio,
    significant,
)
from edgekd.report.schema import KeptMagnitude, Report, StageFacts
from edgekd.report.schema_deployed import DeployFacts
from edgekd.report.tables import Column, Table, text_column


def guarantees_table(report: Report) -> Table:
    """What was read back from each written file: a row a check, a column a device."""
    found = [_guarantees(entry) for entry in report.deploy]
    checks = list(dict.fromkeys(check for told in found for check in told))
    columns = (text_column("check"), *(text_column(clean(device_name(entry))) for entry in report.deploy))
    rows = [(check, *(told.get(check, MISSING) for told in found)) for check in checks]
    return Table("Read back from the files", columns, rows)


def _guarantees(entry: DeployFacts) -> dict[str, str]:
    told: dict[str, str] = {}
    if (sparsity := entry.sparsity) is not None:
        layers = f"{sparsity.layers} of {plural(sparsity.layers_total, 'layer')}"
        told["sparsity"] = f"{clean(sparsity.pattern)} in {layers}"
        told["violations (groups)"] = f"{sparsity.violations:,}"
    if (quantization := entry.quantization) is not None:
        total = quantization.integer_ops + quantization.float_ops
        nodes = f"{quantization.integer_ops} of {total} convolutions and linears"
        told["integer kernels"] = f"{percent(quantization.coverage)} ({nodes})"
        if quantization.mac_coverage is not None:
            told["integer MACs"] = f"{percent(quantization.mac_coverage)} of convolutions and linears"
        if quantization.float_products:
            told["attention"] = f"{plural(quantization.float_products, 'product')} of activations in float"
        told["scheme"] = clean(quantization.scheme)
        if quantization.weight_bytes is not None:
            before = byte_count(quantization.weight_bytes_fp32)
            told["linear weights"] = f"{byte_count(quantization.weight_bytes)} instead of {before}"
    if (parity := entry.parity) is not None:
        told["parity"] = f"same top-1 on {percent(parity.agreement)} of {plural(parity.samples, 'sample')}"
        if parity.max_abs_diff is not None:
            told["largest difference"] = significant(parity.max_abs_diff)
        if parity.reference is not None:
            told["compared with"] = clean(parity.reference)
    return told


def skipped_table(report: Report) -> Table:
    """Layers that stay dense and nodes that stay in float, with the reason."""
    rows = []
    for entry in report.deploy:
        for left_out, what in (
            (entry.sparsity.skipped if entry.sparsity else [], "dense"),
            (entry.quantization.float_nodes if entry.quantization else [], "float"),
        ):
            rows += [
                (clean(device_name(entry)), clean(n.name), what, clean(n.reason) or MISSING) for n in left_out
            ]
    return Table("Left out, and why", tuple(map(text_column, ("device", "layer", "stays", "reason"))), rows)


def variants_table(entry: DeployFacts) -> Table:
    """The ways to write the trained network that were timed, the deployed one in bold."""
    numbers = ("p50", "vs float", "size", "validation", "layers in float")
    rows = [
        (
            clean(variant.name),
            milliseconds(variant.p50_ms, variant.kind),
            ratio(variant.speedup_vs_fp32),
            byte_count(variant.size_bytes),
            percent(variant.validation_score),
            "all" if variant.name == "fp32" else str(len(variant.float_layers)),
        )
        for variant in entry.variants
    ]
    chosen = frozenset(k for k, variant in enumerate(entry.variants) if variant.deployed)
    kind = "Estimated" if any(variant.kind == "estimated" for variant in entry.variants) else "Measured"
    title = f"{kind} before one was deployed on {clean(device_name(entry))}"
    return Table(title, (text_column("file"), *map(Column, numbers)), rows, chosen)


def float_layers_table(entry: DeployFacts) -> Table:
    """Layers that went back to float because their block is slower in integers; a row a block."""
    layers = [layer for variant in entry.variants if variant.deployed for layer in variant.float_layers]
    rows = [
        (_together([clean(layer.name) for layer in block]), clean(reason) or MISSING)
        for reason, block in groupby(layers, key=lambda layer: layer.reason)
    ]
    return Table("Layers in float, and why", (text_column("layers"), text_column("reason")), rows)


def _together(names: list[str]) -> str:
    """Names of one block: ``blocks.0.conv_pw`` and ``blocks.0.se.conv`` are ``blocks.0: conv_pw, se.conv``."""
    if len(names) == 1:
        return names[0]
    parts = [name.split(".") for name in names]
    columns = zip(*(each[:-1] for each in parts), strict=False)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    rest = ", ".join(".".join(each[shared:]) for each in parts)
    return f"{'.'.join(parts[0][:shared])}: {rest}" if shared else rest


def stage_notes(stage: StageFacts) -> list[str]:
    """What a stage says about itself, one sentence each."""
    notes = [clean(note) for note in stage.notes]
    kept = stage.kept_magnitude
    if isinstance(kept, KeptMagnitude):
        if kept.before is not None and kept.after is not None:
            before, after = percent(kept.before), percent(kept.after)
            notes.append(f"kept magnitude {before} before and {after} after channel permutation")
        elif (share := kept.after if kept.after is not None else kept.before) is not None:
            notes.append(f"kept magnitude {percent(share)}")
    elif kept is not None:
        notes.append(f"kept magnitude {percent(kept)}")
    return notes


def origin_table(report: Report) -> Table:
    """How the run was made: everything that one needs to make it again."""
    data, machine = report.data, report.machine
    sizes = f"{data.train:,} train, {data.validation:,} validation, {data.test:,} test"
    rows: list[tuple[str, str]] = [
        ("recipe", f"{report.recipe.name} ({report.recipe.hash[:12]})"),
        ("task", report.task),
        ("teacher", report.models.teacher or MISSING),
        ("student", report.models.student or MISSING),
        ("data", f"{data.name}: {sizes}"),
    ]
    if data.classes is not None:
        rows.append(("classes", f"{data.classes:,}"))
    rows += [(f"data: {key}", _plain(value)) for key, value in data.provenance.items()]
    if data.fingerprint:
        rows.append(("data fingerprint", data.fingerprint[:12]))
    facts = [machine.cpu, plural(machine.cores, "core") if machine.cores is not None else None,
             plural(machine.threads, "thread") if machine.threads is not None else None]  # fmt: skip
    rows.append(("machine", ", ".join(fact for fact in facts if fact) or MISSING))
    rows += [("trained on", report.torch_device), ("time", duration(report.seconds))]
    rows += [(f"seed: {name}", str(seed)) for name, seed in report.seeds.items()]
    rows += [(f"version: {name}", version) for name, version in report.versions.items()]
    rows += [(f"sha256 for {entry.device}", entry.sha256) for entry in report.deploy]
    cleaned = [(clean(name), clean(value)) for name, value in rows]
    return Table("How it was made", (text_column("what"), text_column("value")), cleaned)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return MISSING if value is None else str(value)
