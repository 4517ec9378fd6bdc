"""Do all nodes write into one and the same folder? Rank 0 leaves a file there, the others read it."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron_agent.errors import FILE_ERRORS, describe_file_error
from megatron_agent.files import atomic_write
from megatron_agent.installation.storage import write_problem

PATIENCE_SECONDS = 10.0
"""A network file system may show a new file a while later."""

OLD_SECONDS = 3600.0
"""A file of this age is none of a preflight that still goes on."""


class SharedFolder:
    """The folder of a run, seen from one rank.

    `tell(note)` hands rank 0's note to the others and `ask()` waits for it. Close it on rank 0 to remove the file.
    """

    def __init__(self, folder: str, rank: int, tell: Callable[[Any], None], ask: Callable[[], Any]) -> None:
        self.folder, self.rank, self._tell, self._ask = Path(folder), rank, tell, ask
        self._file: Path | None = None

    def leave_token(self) -> str | None:
        """On rank 0, before anything else: make the folder and leave the file; return what went wrong."""
        token = os.urandom(16).hex()
        file = self.folder / f".preflight.{token}"
        problem = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)  # as training does
            with atomic_write(file) as handle:
                handle.write(token)
            self._file = file
            self._remove_old(file)
        except OSError as error:
            problem = describe_file_error(error) if error.errno in FILE_ERRORS else str(error)
        self._tell({"token": token if problem is None else None})
        return problem

    def _remove_old(self, file_of_ours: Path) -> None:
        """Remove what a preflight that was killed could not."""
        now = file_of_ours.stat().st_mtime  # by the clock of the file system
        for file in self.folder.glob(".preflight.*"):
            with contextlib.suppress(OSError):
                if file.stat().st_mtime < now - OLD_SECONDS:
                    file.unlink()

    def leave_nothing(self) -> None:
        """On rank 0 without a configuration: tell the others that there is no folder to look at."""
        self._tell({"token": None})

    def problems(self) -> list[str]:
        """Return what is wrong with the folder on this node: another folder than rank 0's, or not to be written."""
        where = f"training.output_dir {self.folder.absolute()}"
        if self.rank == 0:
            problem = self.leave_token()
            return [f"{where} cannot be written: {problem}"] if problem else []
        token = self._ask()["token"]
        if token is None:
            return []  # rank 0 says why
        if not self._sees(token):
            return [
                f"{where} is not the folder that rank 0 writes into: put it on a file system that all nodes share, "
                "and mount it in the container of every node"
            ]
        problem = write_problem(self.folder)
        return [f"{where} cannot be written from here: {problem}"] if problem else []

    def _sees(self, token: str) -> bool:
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(OSError):
                if (self.folder / f".preflight.{token}").read_text(encoding="utf-8") == token:
                    return True
            if time.monotonic() > end or not self.folder.is_dir():
                return False
            time.sleep(0.5)

    def close(self) -> None:
        """Remove the file that rank 0 left."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.unlink()
            self._file = None
