"""Demonstrations: what ships is valid in the evaluator's grammar; AgentBench's own files are read and checked."""

import ast
import json
import re
from pathlib import Path

import pytest

from data_prep.agentinstruct.audit_actions import check_mind2web
from data_prep.agentinstruct.match_evaluator import ALFWORLD_GOALS
from data_prep.agentinstruct.replies import GRAMMARS, thought_of
from data_prep.agentinstruct.webshop_pages import read_page
from megatron_agent.chat.conversation import Turn
from megatron_agent.environments.demonstrations import ALFWORLD_GAMES, ALFWORLD_OPENING, load_demonstrations
from megatron_agent.errors import UserError


def test_webshop_actions_can_be_taken() -> None:
    messages = load_demonstrations("webshop")[""]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 4
    for user, assistant in zip(messages[::2], messages[1::2], strict=True):
        form = re.fullmatch(r"Observation:\n(.*)\n\nAvailable Actions:\n(\{.*\})", user["content"], re.DOTALL)
        assert form
        actions = ast.literal_eval(form[2])
        page = read_page(form[1])
        assert (actions["has_search_bar"], tuple(actions["clickables"])) == (page.has_search_bar, page.clickables)
        assert not page.undecided
        action = GRAMMARS["webshop"].action.search(assistant["content"])
        assert action
        verb, value = action["action"][:-1].split("[")
        assert actions["has_search_bar"] if verb == "search" else value.lower() in actions["clickables"]
    assert GRAMMARS["webshop"].final.search(messages[-1]["content"])


@pytest.mark.parametrize("game", ALFWORLD_GAMES)
def test_alfworld_games_can_be_played(game: str) -> None:
    """A small independent player: things are where they were seen, hands hold one of them, the goal is reached."""
    messages = load_demonstrations("alfworld")[game]
    assert 12 <= len(messages) <= 18
    assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
    assert messages[0]["content"].startswith(ALFWORLD_OPENING + "You are in the middle of a room.")
    room, goal = messages[0]["content"].split("\nYour task is to: ")
    assert next(kind for kind, pattern in ALFWORLD_GOALS if pattern.match(goal)) == game
    receptacles = set(re.findall(r"a ([a-z]+ \d+)", room))
    place, holding, closed, done = "", "", False, []
    for index in range(1, len(messages), 2):
        reply = messages[index]["content"]
        assert re.fullmatch(r"(THOUGHT: [^\n]+\n )?ACTION: [^\n]+\n", reply)
        action = reply.partition("ACTION: ")[2].strip()
        after = messages[index + 1]["content"].strip() if index + 1 < len(messages) else ""
        seen = set(re.findall(r"a ([a-z]+ \d+)", messages[index - 1]["content"]))
        if found := re.fullmatch(r"go to (.+)", action):
            place = found[1]
            assert place in receptacles
            closed = after == f"The {place} is closed."
            assert closed or after.startswith((f"On the {place}, you see", f"The {place} is open. In it, you see"))
        elif found := re.fullmatch(r"open (.+)", action):
            assert (found[1], closed) == (place, True)
            assert after.startswith(f"You open the {place}. The {place} is open. In it, you see")
            closed = False
        elif found := re.fullmatch(r"take (.+) from (.+)", action):
            assert found[1] in seen
            assert (found[2], holding, closed) == (place, "", False)
            holding = found[1]
            assert after == f"You pick up the {holding} from the {place}."
        elif found := re.fullmatch(r"(clean|heat|cool) (.+) with (.+)", action):
            assert (found[2], found[3]) == (holding, place)
            assert place.split()[0] == {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}[found[1]]
            assert after == f"You {found[1]} the {holding} using the {place}."
            done.append(found[1])
        elif found := re.fullmatch(r"put (.+) in/on (.+)", action):
            assert (found[1], found[2], closed) == (holding, place, False)
            assert after in ("", f"You put the {holding} in/on the {place}.")
            done.append(f"{holding.split()[0]} {place.split()[0]}")
            holding = ""
        elif found := re.fullmatch(r"use (desklamp \d+)", action):
            assert found[1] in seen
            assert after in ("", f"You turn on the {found[1]}.")
            done.append(f"{holding.split()[0]} under desklamp")
        else:
            pytest.fail(f"not an action: {action!r}")
    thing, where = re.findall(r"ladle|potato|mug|keychain|candle|pen\b", goal)[0], goal.rstrip(".\n").split()[-1]
    expected = {
        "put": [f"{thing} {where}"],
        "puttwo": [f"{thing} {where}"] * 2,
        "examine": [f"{thing} under desklamp"],
    }.get(game, [game, f"{thing} {where}"])
    assert done == expected


def test_mind2web_replies_answer_their_questions() -> None:
    messages = load_demonstrations("mind2web")[""]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 3
    for user, assistant in zip(messages[::2], messages[1::2], strict=True):
        assert not list(check_mind2web((Turn("human", user["content"]),), assistant["content"]))
        assert thought_of("mind2web", assistant["content"])
        for choice in re.findall(r"^[B-F]\. (.*?)(?: <option)?$", user["content"], re.MULTILINE):
            assert choice in user["content"].split("\n'''\n\n")[0]


def test_files_of_agentbench(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "agentbench" / "mind2web"
    messages = load_demonstrations("mind2web", folder)[""]
    original = json.loads((folder / "llm_prompt_cot.json").read_text())
    assert [message["content"] for message in messages] == [message["content"] for message in original[:6]]
    games = {game: ["room\nYour task is to: x.\n", "ACTION: go\n"] for game in ALFWORLD_GAMES}
    (tmp_path / "alfworld_multiturn_react.json").write_text(json.dumps(games))
    loaded = load_demonstrations("alfworld", tmp_path)
    assert loaded["heat"][0] == {"role": "user", "content": ALFWORLD_OPENING + games["heat"][0]}
    assert loaded["heat"][1] == {"role": "assistant", "content": "ACTION: go\n"}


@pytest.mark.parametrize(
    ("task", "content", "words"),
    [
        ("webshop", None, "holds no demonstrations of webshop; expected a file webshop.json"),
        ("webshop", "{", "not valid JSON"),
        ("webshop", "{}", "expected a list"),
        ("webshop", "[]", "got 0 messages"),
        ("webshop", '[{"role": "user", "content": "a"}]', "got 1 messages"),
        ("webshop", '[{"role": "agent", "content": "a"}]', "message 1: expected a text of role user"),
        ("webshop", '[{"role": "user", "content": 1}]', "message 1: expected a text of role user"),
        ("webshop", '[{"role": "user", "content": "\\ud800"}]', "message 1: lone surrogate"),
        ("alfworld", '{"put": []}', "with keys put, clean, heat, cool, examine, puttwo"),
    ],
)
def test_bad_folders(tmp_path: Path, task: str, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / f"{task}.json").write_text(content)
    with pytest.raises(UserError) as caught:
        load_demonstrations(task, tmp_path)
    assert words in str(caught.value)
