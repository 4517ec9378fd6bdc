"""The candidate ranker's scores: Mind2Web's `scores_all_data.pkl`, or the same as JSON.

`{"scores": {sample: {node: score}}, "ranks": {sample: {node: rank from 0}}}`, where sample is
`<annotation_id>_<action_uid>` and node a `backend_node_id` (OSU-NLP-Group/Mind2Web, `src/candidate_generation`).
"""

import json
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron_agent.errors import UserError

FILE_NAMES = ("scores_all_data.pkl", "scores_all_data.json")

Ranks = Mapping[str, Mapping[str, int]]


def find_scores(tasks: Path) -> Path | None:
    """Return the file of scores beside the tasks (a file or a folder), in the folder, or one folder up."""
    for folder in (tasks, tasks.parent, tasks.parent.parent):
        for name in FILE_NAMES:
            if (folder / name).is_file():
                return folder / name
    return None


def read_ranks(path: Path) -> Ranks:
    """Return `ranks` of a file of scores. Raises UserError for a file that is not one.

    A pickle may hold containers, strings and numbers, Python's or numpy's; anything else in it is refused
    before it is made, so that a file from elsewhere cannot run code here.
    """
    try:
        with path.open("rb") as file:
            data = _NumbersUnpickler(file).load() if path.suffix == ".pkl" else json.load(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except Exception as error:  # what a damaged pickle raises has no common class
        raise UserError(f"{path}: expected candidate scores: {type(error).__name__}: {error}") from error
    ranks = data.get("ranks") if isinstance(data, dict) else None
    if not isinstance(ranks, dict):
        raise UserError(f'{path}: expected {{"scores": ..., "ranks": {{sample: {{node: rank}}}}}}, found no "ranks"')
    for sample, ranking in ranks.items():
        if not isinstance(ranking, dict):
            raise UserError(f'{path}: "ranks" of {sample!r}: expected {{node: rank}}, got {type(ranking).__name__}')
    return ranks


class _NumbersUnpickler(pickle.Unpickler):
    """Reads containers, strings and numbers. numpy's numbers become Python's; numpy itself is not called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")):
            return _number
        if (module, name) == ("numpy", "dtype"):
            return _NumberType
        if (module, name) == ("_codecs", "encode"):  # how the older protocols write bytes
            return _latin_bytes
        raise pickle.UnpicklingError(f"{module}.{name} is no container, string or number")


_FORMATS = {
    "b1": "?",
    "f2": "e",
    "f4": "f",
    "f8": "d",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
}
"""numpy's names of the types of single numbers, in the letters of `struct`."""


class _NumberType:
    """Stands for a numpy dtype of one number."""

    def __init__(self, name: str, *_: Any) -> None:
        if name not in _FORMATS:
            raise pickle.UnpicklingError(f"a numpy value of type {name!r} is no number")
        self.format = "<" + _FORMATS[name]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.format = ">" + self.format[1:]


def _number(number_type: _NumberType, data: bytes) -> Any:
    return struct.unpack(number_type.format, data)[0]


def _latin_bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes written in {encoding!r}")
    return text.encode("latin1")
