"""Write the pages that ship with the Mind2Web task: `python -m data_prep.mind2web_pages --output FOLDER`.

The websites of this package in the schema of Mind2Web's files, with scores as a ranker gives them. The same files come
out every time; a test compares them with the shipped ones.
"""

import argparse
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from data_prep.mind2web_pages import SITES
from data_prep.mind2web_pages.template import Element, Site, SiteTask, Step, whole_page
from megatron_agent.errors import run_command
from megatron_agent.files import atomic_write

INTERACTIVE = ("a", "button", "input", "select")


class NumberedPage:
    """A page with a `backend_node_id` on every element and text, as a browser would number them."""

    def __init__(self, root: Element, first_id: int) -> None:
        self.nodes: dict[str, Element] = {}
        self.by_key: dict[str, str] = {}
        self.parents: dict[str, str] = {}
        self._next = first_id
        self.html = self._write(root, None)

    def _write(self, element: Element, parent: str | None) -> str:
        node_id = self._number()
        self.nodes[node_id] = element
        if parent is not None:
            self.parents[node_id] = parent
        if element.key is not None:
            self.by_key[element.key] = node_id
        attributes = "".join(f" {name}={quoteattr(value)}" for name, value in element.attributes.items())
        start = f'<{element.tag} backend_node_id="{node_id}"{attributes}'
        if not element.children:
            return start + "/>"
        parts = [
            f'<text backend_node_id="{self._number()}">{escape(child)}</text>'
            if isinstance(child, str)
            else self._write(child, node_id)
            for child in element.children
        ]
        return f"{start}> {' '.join(parts)} </{element.tag}>"

    def _number(self) -> str:
        self._next += 1
        return str(self._next)

    def text(self, node_id: str) -> str:
        return " ".join(_texts(self.nodes[node_id]))


def _texts(element: Element) -> Iterator[str]:
    for child in element.children:
        yield from [child] if isinstance(child, str) else _texts(child)


def make_tasks() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the tasks and the scores of their candidates."""
    tasks: list[dict[str, Any]] = []
    scores: dict[str, dict[str, float]] = {}
    for site in SITES:
        for number, task in enumerate(site.tasks):
            annotation_id = f"{site.name}-{number}"
            record = _task(site, task, annotation_id)
            tasks.append(record)
            for action in record["actions"]:
                step = f"{annotation_id}_{action['action_uid']}"
                scores[step] = _scores(step, task.confirmed_task, action)
    ranks = {step: {node: rank for rank, node in enumerate(ranking)} for step, ranking in scores.items()}
    for action in (action for task in tasks for action in task["actions"]):
        for candidate in action["pos_candidates"] + action["neg_candidates"]:
            del candidate["words"]
    return tasks, {"scores": scores, "ranks": ranks}


def _task(site: Site, task: SiteTask, annotation_id: str) -> dict[str, Any]:
    values: dict[str, str] = {}
    actions, reprs = [], []
    for number, step in enumerate(task.steps):
        action_uid = f"step{number}"
        first_id = zlib.crc32(f"{annotation_id}_{action_uid}".encode()) % 9000
        page = NumberedPage(whole_page(site, step.page, values), first_id)
        actions.append(_action(page, step, action_uid))
        reprs.append(_action_repr(page, step))
        if step.operation != "CLICK":
            values[step.key] = step.value
    return {
        "annotation_id": annotation_id,
        "website": site.name,
        "domain": site.domain,
        "subdomain": site.subdomain,
        "confirmed_task": task.confirmed_task,
        "action_reprs": reprs,
        "actions": actions,
    }


def _action(page: NumberedPage, step: Step, action_uid: str) -> dict[str, Any]:
    target = page.by_key[step.key]
    right = [target]
    if page.nodes[target].tag in ("a", "button"):  # what lies inside takes the click as well
        right += [node_id for node_id, parent in page.parents.items() if parent == target]
    wrong = [
        node_id
        for node_id, element in page.nodes.items()
        if node_id not in right and (element.tag in INTERACTIVE or element.key)
    ]
    return {
        "action_uid": action_uid,
        "operation": {"original_op": step.operation, "value": step.value, "op": step.operation},
        "pos_candidates": [
            {
                **_candidate(page, node_id),
                "is_original_target": node_id == target,
                "is_top_level_target": node_id == target,
            }
            for node_id in right
        ],
        "neg_candidates": [_candidate(page, node_id) for node_id in wrong],
        "raw_html": "",
        "cleaned_html": page.html,
    }


def _candidate(page: NumberedPage, node_id: str) -> dict[str, Any]:
    element = page.nodes[node_id]
    attributes = json.dumps({"backend_node_id": node_id, **element.attributes})
    words = f"{page.text(node_id)} {' '.join(element.attributes.values())}"
    return {"tag": element.tag, "attributes": attributes, "backend_node_id": node_id, "words": words}


def _action_repr(page: NumberedPage, step: Step) -> str:
    """Return Mind2Web's line for an action, such as `[textbox]  Where to? -> TYPE: Riga`."""
    element = page.nodes[page.by_key[step.key]]
    kind = element.attributes.get("role", element.tag)
    name = element.attributes.get("placeholder") or element.attributes.get("aria_label")
    if step.operation == "SELECT":
        name = element.attributes["name"]
    value = "" if step.operation == "CLICK" else f": {step.value}"
    return f"[{kind}]  {name or page.text(page.by_key[step.key])} -> {step.operation}{value}"


def _scores(step: str, confirmed_task: str, action: Mapping[str, Any]) -> dict[str, float]:
    """Return scores, best first: common words decide among the wrong, chance which of the ten places is right's."""
    wanted = set(confirmed_task.lower().split())

    def likeness(candidate: Mapping[str, Any]) -> tuple[int, int]:
        common = len(wanted & set(candidate["words"].lower().split()))
        return -common, zlib.crc32(f"{step} {candidate['backend_node_id']}".encode())

    ranking = [candidate["backend_node_id"] for candidate in sorted(action["neg_candidates"], key=likeness)]
    for number, candidate in enumerate(action["pos_candidates"]):
        place = zlib.crc32(f"{step} {number}".encode()) % 10
        ranking.insert(place, candidate["backend_node_id"])
    return {node_id: round(0.99 * 0.9**rank, 4) for rank, node_id in enumerate(ranking)}


def write_pages(folder: Path) -> None:
    """Write `tasks.json` and `scores_all_data.json`."""
    for name, data in zip(("tasks.json", "scores_all_data.json"), make_tasks(), strict=True):
        with atomic_write(folder / name) as file:
            file.write(json.dumps(data, indent=None, separators=(",", ":")) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.mind2web_pages",
        description="Write the pages, steps and candidate scores that ship with the Mind2Web task, in the schema of "
        "Mind2Web's own files (tasks.json, scores_all_data.json).",
        epilog="example: python -m data_prep.mind2web_pages --output runs/mind2web_pages",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for the two files")
    write_pages(parser.parse_args(argv).output)


if __name__ == "__main__":
    run_command(main)
