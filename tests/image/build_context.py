"""What a container build would be given: the repository's files by the rules of `.dockerignore`."""

import os
import re
from collections.abc import Iterator
from pathlib import Path


def context_files(repository: Path) -> list[Path]:
    """Paths, relative to the repository, of the files that `.dockerignore` lets into the build, sorted."""
    rules = list(_rules(repository / ".dockerignore"))
    found = []
    for folder, folders, files in os.walk(repository):
        here = Path(folder).relative_to(repository)
        # No rule brings back something inside these, and they may be huge.
        folders[:] = [name for name in folders if _is_in(here / name, rules)]
        found += [here / name for name in files if _is_in(here / name, rules)]
    return sorted(found)


def _rules(file: Path) -> Iterator[tuple[re.Pattern[str], bool]]:
    """Of each line: its pattern, and True if it brings files back (`!`)."""
    for line in file.read_text(encoding="utf-8").splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            yield _pattern(line.removeprefix("!").strip("/")), line.startswith("!")


def _pattern(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*|\?)", glob)
    meanings = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meanings.get(part, re.escape(part)) for part in parts))


def _is_in(path: Path, rules: list[tuple[re.Pattern[str], bool]]) -> bool:
    """The last rule that fits the path or a folder above it decides."""
    names = [str(part) for part in (path, *path.parents) if str(part) != "."]
    wanted = True
    for pattern, brings_back in rules:
        if any(pattern.fullmatch(name) for name in names):
            wanted = brings_back
    return wanted
