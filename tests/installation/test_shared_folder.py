"""What rank 0 leaves in the folder of a run."""

import os
from pathlib import Path
from typing import Any

from megatron_agent.installation.shared_folder import SharedFolder


def test_what_a_killed_preflight_left_is_removed(tmp_path: Path) -> None:
    old, new = tmp_path / ".preflight.old", tmp_path / ".preflight.new"
    for file in (old, new):
        file.touch()
    os.utime(old, (1.0, 1.0))
    notes: list[Any] = []
    folder = SharedFolder(str(tmp_path), 0, notes.append, lambda: None)
    assert folder.problems() == []
    left = {f".preflight.{notes[0]['token']}", new.name}
    assert {file.name for file in tmp_path.iterdir()} == left
    folder.close()
    assert [file.name for file in tmp_path.iterdir()] == [new.name]
