"""Who plays: a served model, the expert of the tasks, or the recorded replies of an earlier evaluation."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from megatron_agent.agents.client import ChatClient
from megatron_agent.environments.task_kind import TaskKind
from megatron_agent.errors import UserError
from megatron_agent.files import read_json_object

SERVER = ("base_url", "model", "endpoint", "api_key")
REQUESTS: Mapping[str, Any] = {
    "max_tokens": 128,
    "temperature": 0.0,
    "top_p": None,
    "seed": None,
    "timeout": 120.0,
    "retries": 3,
    "price_prompt": None,
    "price_completion": None,
}
"""The options of requests and what holds when they are not given."""


@dataclass(frozen=True)
class Player:
    """A source of replies: `clients(kind)` gives the function from a task to the client that plays it."""

    clients: Callable[[TaskKind], Callable[[Any], ChatClient]]
    settings: dict[str, Any] = field(default_factory=dict)
    """What the scores depend on: fields of `EvaluationSettings`."""


@dataclass(frozen=True)
class Server:
    """Where a model is served; `folder` holds its weights, where they can be seen from here."""

    base_url: str
    model: str
    api_key: str = "none"
    folder: str = ""
    job_id: str = ""


def make_player(arguments: argparse.Namespace) -> Player:
    """Return the player that the command line describes. Raises UserError for flags that do not fit together."""
    if arguments.expert and arguments.replay:
        raise UserError("--expert and --replay both say who plays: give one of them")
    if not arguments.expert and not arguments.replay:
        return _served(arguments)
    flag = "--expert" if arguments.expert else "--replay"
    given = [name for name in SERVER if getattr(arguments, name) is not None]
    if given := [*given, *(name for name in REQUESTS if name in arguments)]:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise UserError(f"{flag} asks no server: leave {flags} away")
    return _expert() if arguments.expert else _replay(arguments.replay)


def _served(arguments: argparse.Namespace) -> Player:
    from megatron_agent.agents.client import OpenAIChatClient, Prices
    from megatron_agent.evaluation.fingerprint import model_fingerprint

    server = _server(arguments)
    options = {name: getattr(arguments, name, default) for name, default in REQUESTS.items()}
    prompt, completion = options.pop("price_prompt"), options.pop("price_completion")
    prices = None if prompt is None and completion is None else Prices(prompt or 0.0, completion or 0.0)
    client = OpenAIChatClient(server.base_url, server.model, server.api_key, prices=prices, **options)
    settings = {
        "model": server.model,
        "model_sha256": model_fingerprint(server.folder) if server.folder and Path(server.folder).is_dir() else None,
        **{name: options[name] for name in ("max_tokens", "temperature", "top_p", "seed")},
    }
    return Player(lambda kind: client.for_task, settings)


def _expert() -> Player:
    from megatron_agent.agents.replay import ExpertClients

    return Player(lambda kind: ExpertClients(kind).for_task, {"model": "expert"})


def _replay(folder: Path) -> Player:
    from megatron_agent.agents.replay import ReplayClient

    def clients(kind: TaskKind) -> Callable[[Any], ChatClient]:
        files = [place / "results.jsonl" for place in (folder / kind.name, folder)]
        path = next((path for path in files if path.is_file()), None)
        if path is None:
            raise UserError(f"--replay {folder}: expected {files[0]} or {files[1]}, found neither")
        return ReplayClient.from_results(path).for_task

    return Player(clients, {"model": f"replay of {folder}"})


def _server(arguments: argparse.Namespace) -> Server:
    """Return the server that --base-url and --model, or --endpoint, describe."""
    given = {name: getattr(arguments, name) for name in ("base_url", "model", "api_key")}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.endpoint is None:
        if missing := [name for name in ("base_url", "model") if name not in given]:
            flag = "--" + missing[0].replace("_", "-")
            raise UserError(f"{flag} is missing: give --base-url and --model, or --endpoint FILE (or --expert)")
        return Server(**given, folder=given["model"])
    if given:
        flag = "--" + next(iter(given)).replace("_", "-")
        raise UserError(f"--endpoint and {flag} both say where the model is served: give one of them")
    described = read_json_object(arguments.endpoint, "start launch/serve.sbatch again, which writes it")
    if not all(isinstance(value, str) for value in described.values()):
        raise UserError(
            f"--endpoint {arguments.endpoint}: expected text in every field; start launch/serve.sbatch again"
        )
    try:
        return Server(**described)
    except TypeError as error:
        wanted, got = ", ".join(field.name for field in fields(Server)), ", ".join(described)  # no values: a key is one
        raise UserError(f"--endpoint {arguments.endpoint}: expected the fields {wanted}, got {got}") from error
