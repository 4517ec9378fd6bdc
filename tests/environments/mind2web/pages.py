"""A small page in Mind2Web's schema, for tests."""

import json
from pathlib import Path
from typing import Any


def make_action(uid: str = "u0", gold: str | None = "3", links: int = 12, op: str = "CLICK", value: str = "") -> Any:
    """A page of links numbered from 0; `gold` is right."""
    body = " ".join(
        f'<a backend_node_id="{n}" title="link{n}"> <text backend_node_id="t{n}">go {n}</text> </a>'
        for n in range(links)
    )
    candidates = [{"tag": "a", "attributes": "{}", "backend_node_id": str(n)} for n in range(links)]
    return {
        "action_uid": uid,
        "raw_html": "<html></html>",
        "cleaned_html": f'<html backend_node_id="root"> {body} </html>',
        "operation": {"op": op, "value": value, "original_op": op},
        "pos_candidates": [c for c in candidates if c["backend_node_id"] == gold],
        "neg_candidates": [c for c in candidates if c["backend_node_id"] != gold],
    }


def make_record(actions: list[Any], annotation_id: str = "task") -> Any:
    return {
        "website": "linkland",
        "domain": "Info",
        "subdomain": "Links",
        "annotation_id": annotation_id,
        "confirmed_task": "Follow the third link",
        "action_reprs": [f"[a]  step {n} -> CLICK" for n in range(len(actions))],
        "actions": actions,
    }


def natural_ranks(records: list[Any]) -> dict[str, dict[str, int]]:
    """Candidates ranked by their number."""
    return {
        f"{record['annotation_id']}_{action['action_uid']}": {
            candidate["backend_node_id"]: int(candidate["backend_node_id"])
            for candidate in action["pos_candidates"] + action["neg_candidates"]
        }
        for record in records
        for action in record["actions"]
    }


def write(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path
