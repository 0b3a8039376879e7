"""The command that measures every op: eagle-decoding numerics."""

import os
import platform
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def numerics(
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:NUMBER.")] = "cpu",
    report: Annotated[Path | None, typer.Option(help="Markdown file to write the table to.")] = None,
) -> None:
    """Measure every op on every backend against float64; exit with 1 when a bound is broken."""
    if device == "cpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is decorated
    import torch
    from rich.console import Console
    from rich.table import Table

    from eagle_decoding.files import write_text
    from eagle_decoding.numerics.audit import audit
    from eagle_decoding.numerics.report import HEADER, markdown, row
    from eagle_decoding.terminal.models import device_named

    device = device_named(device)
    console = Console()
    findings = []
    with console.status("measuring") as status:
        for finding in audit(device, [torch.float32, torch.float16, torch.bfloat16]):
            status.update(f"{finding.op}, {finding.backend}, {finding.dtype}")
            findings.append(finding)
    table = Table(*(column.strip() for column in HEADER.split("|")[1:-1]))
    for finding in findings:
        table.add_row(
            *(cell.strip() for cell in row(finding, device).split("|")[1:-1]), style=None if finding.holds else "red"
        )
    console.print(table)
    if report is not None:
        hardware = torch.cuda.get_device_name() if device == "cuda" else f"a CPU ({platform.machine()})"
        write_text(report, markdown(findings, device, hardware))
    broken = sum(not finding.holds for finding in findings)
    console.print(f"{len(findings)} outputs measured, {broken} out of bounds.")
    raise typer.Exit(int(broken > 0))
