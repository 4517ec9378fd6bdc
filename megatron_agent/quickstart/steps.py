"""Run the commands of the quickstart once each; a later call skips what is done and resumes what was stopped."""

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from megatron_agent.errors import UserError
from megatron_agent.files import atomic_write
from megatron_agent.processes import die_with_parent

console = Console(highlight=False)


@dataclass
class StepRunner:
    """Runs numbered steps in `folder`; each leaves a stamp that says what it ran, from what, and how long it took.

    A stamp names the run of the step before it, so that a step that runs anew makes all later ones run anew, in this
    call or in the next.
    """

    folder: Path
    total: int
    number: int = 0
    previous_run: str = ""

    def command(self, title: str, arguments: Sequence[str], outputs: Sequence[Path], resumable: bool = False) -> None:
        """Run `python -m ARGUMENTS...` as a user would, unless it was done before with the same arguments."""
        self.function(title, lambda: run_module(arguments), outputs, key=shlex.join(arguments), resumable=resumable)

    def function(
        self, title: str, action: Callable[[], None], outputs: Sequence[Path], key: str = "", resumable: bool = False
    ) -> None:
        """Run `action`, which makes `outputs`; `key` says what its result depends on besides the steps before it.

        Outputs of another run are removed first; a resumable step that was stopped finds its own again.
        """
        self.number += 1
        console.rule(f"[bold]{self.number}/{self.total}  {title}", align="left")
        stamp = self.folder / "done" / f"{self.number:02d}.json"
        fingerprint = hashlib.sha256(f"{self.previous_run} {title} {key}".encode()).hexdigest()
        record = _read_stamp(stamp)
        same = record.get("fingerprint") == fingerprint
        if same and "seconds" in record and all(path.exists() for path in outputs):
            self.previous_run = record["run"]
            console.print("done before, kept")
            return
        if not (same and resumable):
            record = {"title": title, "fingerprint": fingerprint, "run": uuid.uuid4().hex}
            for path in outputs:
                _remove(path)
        record.pop("seconds", None)
        _write_stamp(stamp, record)
        started = time.monotonic()
        action()
        missing = [str(path) for path in outputs if not path.exists()]
        if missing:
            raise UserError(f"step '{title}' ended without writing {', '.join(missing)}")
        record["seconds"] = time.monotonic() - started
        _write_stamp(stamp, record)
        self.previous_run = record["run"]
        console.print(f"[dim]{record['seconds']:.0f} s")

    def seconds(self) -> float:
        """Seconds the finished steps took, over all calls."""
        return sum(_read_stamp(stamp).get("seconds", 0.0) for stamp in (self.folder / "done").glob("*.json"))


def _read_stamp(stamp: Path) -> dict[str, Any]:
    return dict(json.loads(stamp.read_text(encoding="utf-8"))) if stamp.exists() else {}


def _write_stamp(stamp: Path, record: dict[str, Any]) -> None:
    with atomic_write(stamp) as handle:
        json.dump(record, handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def run_module(arguments: Sequence[str]) -> None:
    """Show and run `python -m ARGUMENTS...`; :class:`UserError` when it fails (it has said why itself)."""
    console.print(f"$ python -m {shlex.join(arguments)}", style="cyan", markup=False, soft_wrap=True)
    result = subprocess.run([sys.executable, "-m", *arguments], check=False, preexec_fn=die_with_parent)
    if result.returncode:
        raise UserError(
            f"`python -m {arguments[0]}` ended with status {result.returncode}; its message is above. "
            "`make quickstart` goes on from here once the cause is mended"
        )
