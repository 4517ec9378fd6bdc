"""`results.jsonl`: one line a finished task, appended and synced, so that a stopped run can go on."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from megatron_agent.agents.trajectory import Trajectory
from megatron_agent.environments.task_kind import EpisodeScore
from megatron_agent.errors import UserError
from megatron_agent.files import read_json_lines_tolerating_cut_tail

Result = dict[str, Any]

_FIELDS: dict[str, Any] = {"id": str, "status": str, "category": str, "reward": int | float, "rounds": int,
                           "seconds": int | float, "messages": list, "context_messages": int}  # fmt: skip


def result_of(trajectory: Trajectory) -> Result:
    """Return the line of a trajectory; `messages` comes last, for reading by eye."""
    fields = asdict(trajectory)
    messages = list(fields.pop("messages"))
    return {"id": fields.pop("task_id"), **fields, "seconds": round(trajectory.seconds, 3), "messages": messages}


def score_of(result: Result) -> EpisodeScore:
    """Return what the scores of a task are made of from one line."""
    return EpisodeScore(result["category"], result["reward"], result["status"], result.get("scores", {}))


def read_results(path: Path, errors: bool = False) -> dict[str, Result]:
    """Return the finished results by id; without the file, none.

    A last line that a stop cut off, and (unless `errors`) tasks that ended in `task error`, do not count as finished:
    they are played again. The file is left as it is. Raises UserError for any other damage.
    """
    results: dict[str, Result] = {}
    for number, result in enumerate(read_json_lines_tolerating_cut_tail(path), start=1):
        if not errors and result.get("status") == "task error":
            continue
        for name, kinds in _FIELDS.items():
            if not isinstance(got := result.get(name), kinds):
                raise UserError(
                    f"{path}:{number}: expected a result of an earlier run, got {got!r:.60} under {name!r}; "
                    "mend the line, or give another --output folder"
                )
        results[result["id"]] = result
    return results
