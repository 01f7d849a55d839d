"""``edgekd check``: what a file will do on a device, read off the file and the runtime's own optimized graph."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli.output import JsonOption, write_result


def check(
    model: Annotated[Path, typer.Argument(help="An ONNX file.")],
    device: Annotated[str, typer.Option(help="Whose runtime is asked.")] = "cpu",
    pattern: Annotated[str, typer.Option(help="The N:M pattern to look for.")] = "2:4",
    json_to: JsonOption = None,
) -> None:
    """What a file will do on a device: loads, kernels, 2:4.

    Opset and operators against the runtime, integer kernel coverage, the 2:4 pattern, and what will be slow and why.
    Exits 1 when the device's runtime cannot load the file.
    """
    from edgekd.cli.needs import need
    from edgekd.device import load_device

    spec = load_device(device)
    need("check", "onnx", extra="compress")
    from edgekd.device import check_operators, check_opset
    from edgekd.errors import DeviceError
    from edgekd.export.coverage import check_coverage
    from edgekd.export.explicit import check_explicit
    from edgekd.export.sparsity import check_sparsity
    from edgekd.profiles import read_summary

    summary = read_summary(model)
    problem = None
    try:
        check_opset(spec, summary.opset)
        check_operators(spec, summary.operators)
    except DeviceError as error:
        problem = str(error)
    coverage = (
        check_explicit(model) if spec.runtime == "tensorrt" else check_coverage(model, spec.kernel_rule)
    )
    sparsity = check_sparsity(model, pattern)
    result: dict[str, Any] = {
        "file": str(model), "device": spec.name, "opset": summary.opset, "opset_max": spec.opset_max,
        "loads": problem is None, "precision": summary.precision, "size_bytes": summary.size_bytes,
        "coverage": asdict(coverage), "sparsity": asdict(sparsity), "slow": _slow(coverage, sparsity, spec, summary),
    }  # fmt: skip
    if not write_result(result, json_to):
        typer.echo(f"{model} on {spec.title}")
        typer.echo(f"  opset      {summary.opset} ({'loads' if problem is None else problem})")
        typer.echo(f"  precision  {summary.precision}, {summary.size_bytes / 1e6:.2f} MB")
        typer.echo(f"  kernels    {coverage.integer_ops} integer, {coverage.float_ops} float "
                   f"({_RULES.get(coverage.rule, coverage.rule)})")  # fmt: skip
        typer.echo(f"  {pattern:<9}  {_sparsity(sparsity)}")
        for line in result["slow"]:
            typer.echo(f"  slow: {line}")
    if problem is not None:
        raise typer.Exit(1)


# By whose rule a node counts as an integer kernel.
_RULES = {"x86": "as ONNX Runtime chooses on x86", "arm": "as ONNX Runtime chooses on Arm",
          "explicit": "as the file's Q/DQ nodes say"}  # fmt: skip


def _sparsity(found: Any) -> str:
    if not found.layers:
        return f"in none of {found.layers_total} layers"
    broken = f", {found.violations} violating groups in the others" if found.violations else ""
    return f"in {found.layers} of {found.layers_total} layers{broken}"


def _slow(coverage: Any, sparsity: Any, spec: Any, summary: Any) -> list[str]:
    lines = []
    if coverage.integer_ops and coverage.float_ops:
        lines.append(f"{coverage.float_ops} convolutions or linear layers stay in float; the chain breaks first at "
                     f"{coverage.first_break}")  # fmt: skip
    if coverage.leftover_qdq:
        beside = f", beside {', '.join(coverage.converted_for[:4])}" if coverage.converted_for else ""
        lines.append(
            f"{coverage.leftover_qdq} QuantizeLinear/DequantizeLinear nodes convert between integers and "
            f"float{beside}: a pass over a tensor each"
        )
    if coverage.batch_norms:
        lines.append(f"{coverage.batch_norms} batch norms are not folded")
    if not coverage.integer_ops and spec.int8:
        lines.append("no integer kernel: on this device int8 would be faster (edgekd compress)")
    if sparsity.layers and not sparsity.violations and not spec.sparse_2to4:
        lines.append(f"{spec.title} has no kernels for N:M zeros: they save bytes, not time")
    return lines
