"""The process that plays games: TextWorld's PDDL engine with ALFWorld's names, several games side by side.

Reads one JSON request a line from standard input and writes one answer a line; ends with its input. The engine is
not thread-safe, prints where it likes and may end its process: hence a process of its own. Its argument is an empty
folder for alfworld's data, which it removes at the end: a harness that was killed cannot.
"""

import copy
import json
import os
import shutil
import sys
from functools import lru_cache
from typing import Any, TextIO


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer `load`, `step` and `close` requests until the input ends."""
    _spare_work()
    games: dict[int, Any] = {}
    idle: list[Any] = []  # each holds a copy of the planner's library: used again, not made again
    for line in requests:
        request = json.loads(line)
        session = request["session"]
        try:
            if request["do"] == "load":
                games[session] = idle.pop() if idle else _make_game()
                games[session].load(request["game"])
                answer = _describe(games[session].reset())
            elif request["do"] == "step":
                answer = _describe(games[session].step(request["command"])[0])
            else:
                if (game := games.pop(session, None)) is not None:
                    idle.append(game)
                answer = {}
        except (Exception, SystemExit) as error:  # the translator of PDDL leaves by sys.exit
            answer = {"error": f"{type(error).__name__}: {error}"}
            games.pop(session, None)  # a library in an unknown state is not used again
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _make_game() -> Any:
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs.pddl import PddlEnv

    return AlfredDemangler(PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True)), shuffle=False)


def _describe(state: Any) -> dict[str, Any]:
    return {
        "text": state["feedback"],
        "admissible": state["admissible_commands"],
        "won": bool(state["won"]),
    }


def _spare_work() -> None:
    """Leave out what the engine does again and again to the same end; what it answers stays the same (tested).

    It parses the same grammar at every step and translates a problem four times a game: parses are remembered (symbols
    are handed out as copies, because the engine writes into them), and so is the last translation. That for the
    planner (`optimize`) is replaced by the game's: nothing here asks the planner. It copies the names and bindings of
    every command in depth, which nothing writes into: a flat copy does.
    """
    import fast_downward
    from textworld.envs.pddl import textgen
    from textworld.logic import Rule

    parse_symbols = lru_cache(maxsize=4096)(textgen._parse_and_convert)
    textgen._parse_and_convert = lambda text, rule_name, **_: copy.deepcopy(parse_symbols(text, rule_name=rule_name))
    Rule.parse_conjunctive_query = staticmethod(lru_cache(maxsize=4096)(Rule.parse_conjunctive_query))
    translate = lru_cache(maxsize=1)(fast_downward.pddl2sas)
    fast_downward.pddl2sas = lambda domain, problem, **_: translate(domain, problem)
    textgen.copy_context = lambda context: {
        **context,
        "variables": dict(context["variables"]),
        "mapping": dict(context["mapping"]),
    }


if __name__ == "__main__":
    own_output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the engine prints must not reach the answers
    os.environ["ALFWORLD_DATA"] = sys.argv[1]  # alfworld makes this folder on import
    try:
        serve(sys.stdin, own_output)
    except BrokenPipeError:
        pass  # the harness was killed while it waited for an answer
    finally:
        shutil.rmtree(sys.argv[1], ignore_errors=True)
