"""Doctor's findings as plain data, as a table, as JSON and as one line."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from megatron_agent.installation.probe import Probe
from megatron_agent.model.kernels import Switches

if TYPE_CHECKING:
    from rich.table import Table

WIDTH_OF_LOGS = 120
MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "error": "[bold red]ERROR[/]"}

State = Literal["ok", "note", "error"]
Expect = Literal["gpu", "cpu", "image"]
"""What an installation is for: training on GPUs, on the CPU, or an image that is built where no GPU is."""


@dataclass(frozen=True)
class Finding:
    """One row: what it is about, what is there, what training will use, and how to mend it."""

    name: str
    found: str
    used: str = ""
    mend: str = ""
    state: State = "ok"
    because_of: str = ""
    """The row whose fault this is, when it is not its own."""


@dataclass(frozen=True)
class Examination:
    """Everything doctor found."""

    expect: Expect
    findings: Sequence[Finding]
    switches: Switches
    probe: Probe

    @property
    def errors(self) -> list[Finding]:
        """The rows that make an installation unusable, causes before what follows from them."""
        errors = [finding for finding in self.findings if finding.state == "error"]
        return sorted(errors, key=lambda finding: bool(finding.because_of))


def print_examination(examination: Examination, *, quiet: bool) -> None:
    """Print the table, the kernels of a run on GPUs and the verdict; with `quiet` the failing rows and the verdict."""
    if quiet:
        for finding in examination.errors:
            print(line_of(finding))
        print(verdict(examination))
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    if not console.is_terminal:  # a log: as wide as its lines should be
        console.width = WIDTH_OF_LOGS
    console.print(_findings_table(examination.findings))
    if any(switch.on for switch in examination.switches.values()):
        console.print(_switches_table(examination.switches))
    console.print(
        escape(verdict(examination)), style="bold red" if examination.errors else "bold green", soft_wrap=True
    )


def line_of(finding: Finding) -> str:
    """Return a finding in one line: `name: what is wrong; how to mend it`."""
    return f"{finding.name}: {finding.found}" + (f"; {finding.mend}" if finding.mend else "")


def verdict(examination: Examination) -> str:
    """Return the plain last line."""
    errors = examination.errors
    if errors:
        others = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return f"doctor: NOT usable: {errors[0].name}: {errors[0].found}{others}"
    if examination.expect == "image":
        return "doctor: usable as an image; its GPUs are judged where it runs"
    if examination.expect == "cpu":
        return "doctor: usable on the CPU (gloo); no GPU is used"
    names = {gpu["name"] for gpu in examination.probe.devices}
    engine = examination.switches.get("transformer_engine")
    layers = "Transformer Engine's layers" if engine is not None and engine.on else "megatron-core's own layers"
    return f"doctor: usable on {len(examination.probe.devices)} x {' and '.join(sorted(names))} (NCCL) with {layers}"


def as_json(examination: Examination) -> dict[str, Any]:
    """Return everything in plain values."""
    return {
        "usable": not examination.errors,
        "verdict": verdict(examination),
        "expect": examination.expect,
        "findings": [dataclasses.asdict(finding) for finding in examination.findings],
        "kernels": {name: dataclasses.asdict(switch) for name, switch in examination.switches.items()},
        "torch": dataclasses.asdict(examination.probe),
    }


def _findings_table(findings: Sequence[Finding]) -> "Table":
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Installation", title_justify="left", title_style="bold")
    for column in ("", "", "found", "will be used", "how to mend"):
        table.add_column(column, overflow="fold")
    if not any(finding.mend for finding in findings):
        table.columns.pop()
    for finding in findings:
        cells = [MARKS[finding.state], *map(escape, (finding.name, finding.found, finding.used, finding.mend))]
        table.add_row(*cells[: len(table.columns)])
    return table


def _switches_table(switches: Switches) -> "Table":
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    title = "Kernels of a run with two data-parallel ranks here"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for column in ("kernel", "", "reason"):
        table.add_column(column, overflow="fold")
    for switch in switches.values():
        table.add_row(switch.name, "[green]on[/]" if switch.on else "off", escape(switch.reason))
    return table
