"""Transcripts as one self-contained HTML page: `python -m megatron_agent.evaluation.viewer DIR --output F.html`."""

import argparse
import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_agent.agents.react import split_reply
from megatron_agent.errors import UserError, run_command
from megatron_agent.evaluation.results import Result, read_results
from megatron_agent.evaluation.transcripts import read_unfinished
from megatron_agent.files import atomic_write, check_writable, read_json_object

PAGE_BYTES = 48 << 20
"""A page holds at most about this much; more episodes make more pages, which link to one another."""

_EPILOG = """\
DIR is an output folder of megatron_agent.evaluate, of one task or of several. The page needs no network and nothing
beside it; where there is too much for one page, F-2.html and so on stand beside F.html.

example:
  python -m megatron_agent.evaluation.viewer runs/agentlm-7b/evaluation --output transcripts.html
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page of the folders given on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m megatron_agent.evaluation.viewer",
        description="Write the transcripts of evaluations as one HTML page to read in a browser.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EPILOG,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folder with results.jsonl in or below it")
    parser.add_argument("--output", required=True, type=Path, metavar="F.html", help="the page")
    arguments = parser.parse_args(argv)
    check_writable(arguments.output, "--output")
    for path in write_viewer(find_evaluations(arguments.folders), arguments.output):
        print(path)


def find_evaluations(roots: Iterable[Path]) -> list[Path]:
    """Return the evaluation folders in `roots` and below, each once. Raises UserError for a root without any."""
    found: dict[Path, Path] = {}
    for root in roots:
        here = sorted({path.parent for name in ("results.jsonl", "transcripts.jsonl") for path in root.rglob(name)})
        if not here:
            raise UserError(f"DIR {root}: expected an output folder of megatron_agent.evaluate, found no results.jsonl")
        for folder in here:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def write_viewer(folders: Sequence[Path], output: Path, page_bytes: int = PAGE_BYTES) -> list[Path]:
    """Write the page (or pages) of the episodes of evaluation folders, and return their paths.

    Texts are JSON in which `<` is escaped, and the script puts them into text nodes only; the page's content security
    policy names the hash of its script and allows nothing from outside. Raises UserError for damaged results.
    """
    pages = [_Page()]
    for episode in _episodes(folders):
        if pages[-1].size and pages[-1].size + len(episode.line) > page_bytes:
            pages.append(_Page())
        pages[-1].add(episode)
    paths = [output if number == 1 else output.with_stem(f"{output.stem}-{number}") for number in _numbers(pages)]
    links = [{"name": path.name, "episodes": len(page.index)} for path, page in zip(paths, pages, strict=True)]
    for number, (path, page) in enumerate(zip(paths, pages, strict=True)):
        _write_page(path, page, {"pages": links, "page": number})
    return paths


def _numbers(pages: Sequence[Any]) -> range:
    return range(1, len(pages) + 1)


@dataclass
class _Episode:
    """What the list shows of an episode, the messages before its task, and the line that is read when it is opened."""

    index: dict[str, Any]
    context: list[dict[str, str]]
    line: str


@dataclass
class _Page:
    """Episodes of one page. Contexts are kept once: all episodes of a task mostly share them."""

    index: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    contexts: dict[str, int] = field(default_factory=dict)
    size: int = 0

    def add(self, episode: _Episode) -> None:
        context = _json(episode.context)
        if context not in self.contexts:
            self.contexts[context] = len(self.contexts)
            self.size += len(context)
        self.index.append({**episode.index, "context": self.contexts[context]})
        self.lines.append(episode.line)
        self.size += len(episode.line)


def _episodes(folders: Iterable[Path]) -> Iterator[_Episode]:
    """Yield the finished episodes of every folder, then those that were being played."""
    for folder in folders:
        task = _task_of(folder)
        results = read_results(folder / "results.jsonl", errors=True)
        for result in (*results.values(), *read_unfinished(folder / "transcripts.jsonl", results)):
            yield _episode(task, result)


def _task_of(folder: Path) -> str:
    """Return the task of an evaluation folder; the folder's name while nothing is finished in it."""
    path = folder / "settings.json"
    task = read_json_object(path, "evaluate again").get("task") if path.exists() else None
    return task if isinstance(task, str) else folder.name


def _episode(task: str, result: Result) -> _Episode:
    messages, context = result["messages"], result["context_messages"]
    shown = [_shown(message) for message in messages[max(context - 1, 0) :]]
    index = {name: result.get(name) for name in ("id", "category", "reward", "status", "rounds")}
    opened = {name: result.get(name) for name in ("scores", "seconds", "prompt_tokens", "completion_tokens", "error")}
    return _Episode({"task": task, **index}, messages[: max(context - 1, 0)], _json({**opened, "messages": shown}))


def _shown(message: dict[str, str]) -> dict[str, Any]:
    """Return a message as the page draws it: of a reply its parts, and all of it where not all of it was kept."""
    if message["role"] != "assistant":
        return {"role": message["role"], "text": message["content"]}
    parts = [[part.kind, part.text] for part in split_reply(message.get("kept", message["content"]))]
    parts = parts or [["empty", ""]]
    if "kept" in message:
        parts.append(["whole", message["content"]])
    return {"role": "assistant", "parts": parts}


def _write_page(path: Path, page: _Page, links: dict[str, Any]) -> None:
    folder = Path(__file__).parent
    script = (folder / "viewer.js").read_text(encoding="utf-8")
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    contexts = "[" + ",".join(page.contexts) + "]"
    parts = {
        "title": html.escape(f"Transcripts: {', '.join(sorted({entry['task'] for entry in page.index}))}"),
        "script_hash": f"sha256-{script_hash}",
        "script": script,
        "data": f'{{"contexts":{contexts},"links":{_json(links)},"index":{_json(page.index)}}}',
        "lines": "\n".join(page.lines),
    }
    template = (folder / "viewer.html").read_text(encoding="utf-8")
    with atomic_write(path) as handle:
        handle.writelines(parts.get(piece, piece) for piece in re.split(r"\{\{(\w+)\}\}", template))


def _json(value: Any) -> str:
    """Return JSON that may stand inside a script element: ASCII, on one line, without `<`."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


if __name__ == "__main__":
    run_command(main)
