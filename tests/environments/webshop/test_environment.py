"""The episode: prompt, grammar of both styles, termination, scores."""

import itertools
import json
import random
import re
from pathlib import Path

import pytest

from megatron_agent.environments.base import Observation
from megatron_agent.environments.task_kind import World
from megatron_agent.environments.webshop import TASK_KIND, WebShopEnvironment, WebShopOptions, WebShopTask
from megatron_agent.environments.webshop.environment import NO_ACTION, find_action, opening_messages
from megatron_agent.environments.webshop.title_words import content_words
from megatron_agent.errors import UserError


def act(action: str) -> str:
    return f"Thought:\nI think so.\n\nAction:\n{action}"


@pytest.fixture(params=["paper", "fixed"])
def environment(world: World, request: pytest.FixtureRequest) -> WebShopEnvironment:
    shared = world.make_environment()
    assert isinstance(shared, WebShopEnvironment)
    opening = opening_messages(WebShopOptions(prompt_style=request.param))
    return WebShopEnvironment(shared.catalogue, shared.engine, content_words, opening, request.param)


def buy(environment: WebShopEnvironment, task: WebShopTask) -> Observation:
    messages = environment.reset(task)
    expert = TASK_KIND.expert
    assert expert is not None
    respond = expert(task)
    while True:
        messages.append({"role": "assistant", "content": respond(messages)})
        observation = environment.step(messages[-1]["content"])
        if observation.done:
            return observation
        messages.append({"role": "user", "content": observation.text})


def test_messages_of_an_episode(environment: WebShopEnvironment, world: World) -> None:
    task = world.tasks[0]
    messages = environment.reset(task)
    assert [message["role"] for message in messages] == ["user", "assistant"] * 5 + ["user"]
    assert messages[1]["content"] == "Ok."
    assert messages[-1]["content"] == (
        f"Observation:\nWebShop [SEP] Instruction: [SEP] {task.instruction} [SEP] Search\n\n"
        "Available Actions:\n{'has_search_bar': True, 'clickables': ['search']}"
    )
    observation = environment.step(act("search[table lamp]"))
    assert observation.text.startswith("Observation:\nInstruction: [SEP] ")
    assert "\n\nAvailable Actions:\n{'has_search_bar': False, 'clickables': ['back to search', 'next >', 'b0" in (
        observation.text
    )
    assert (observation.done, observation.status) == (False, None)


def test_the_demonstration_is_in_the_grammar() -> None:
    for message in opening_messages(WebShopOptions())[3::2]:
        assert find_action(message["content"], "paper") == find_action(message["content"], "fixed") is not None


def test_every_shipped_goal_is_worth_one(environment: WebShopEnvironment, world: World) -> None:
    assert len(world.tasks) == 240
    for task in world.tasks:
        observation = buy(environment, task)
        assert (observation.reward, observation.status) == (1.0, "completed"), task.id
        assert observation.scores["r_option"] == 1


def test_a_wrong_purchase_is_worth_less(environment: WebShopEnvironment, world: World) -> None:
    task = next(task for task in world.tasks if task.category == "grocery")
    environment.reset(task)
    environment.step(act("search[<q> hdmi cables]"))
    last = environment.step(act("click[buy now]"))
    assert not last.done
    asin = re.findall(r"'(b0\w{8})'", last.text)[0]
    environment.step(act(f"click[{asin}]"))
    last = environment.step(act("click[Buy Now]"))
    assert (last.done, last.status, last.text) == (True, "completed", "")
    assert last.reward < 0.2
    assert last.scores["r_option"] == 0


def test_ten_actions_and_no_purchase(environment: WebShopEnvironment, world: World) -> None:
    environment.reset(world.tasks[0])
    for _ in range(9):
        assert not environment.step(act("click[Back to Search]")).done
    last = environment.step(act("search[lamp]"))
    assert (last.done, last.reward, last.status) == (True, 0.0, "limit reached")
    with pytest.raises(RuntimeError, match="reset"):
        environment.step(act("search[lamp]"))


def test_buying_with_the_tenth_action_counts(environment: WebShopEnvironment, world: World) -> None:
    task = world.tasks[0]
    environment.reset(task)
    for action in ["click[nothing]"] * 7 + [f"search[{task.name}]", f"click[{task.asin}]"]:
        assert not environment.step(act(action)).done
    last = environment.step(act("click[Buy Now]"))
    assert last.status == "completed"
    assert 0 < last.reward < 1  # no options were chosen


def test_stop_and_close(environment: WebShopEnvironment, world: World) -> None:
    environment.reset(world.tasks[0])
    last = environment.stop("repetition")
    assert (last.done, last.reward, last.status) == (True, 0.0, "repetition")
    environment.close()
    environment.close()
    with pytest.raises(RuntimeError, match="reset"):
        environment.stop("context limit")


@pytest.mark.parametrize(
    ("reply", "paper", "fixed"),
    [
        ("Action:\nsearch[red shoe]", ("search", "red shoe"), ("search", "red shoe")),
        ("Thought:\nx\n\naction:  \n  click[Buy Now] ", ("click", "Buy Now"), ("click", "Buy Now")),
        ("Action:\nclick[a] or click[b]", ("click", "a"), ("click", "a")),
        ("Action: click[a]", None, ("click", "a")),
        ("Action:click[a]", None, ("click", "a")),
        ("Action:\n\nclick[a]", None, ("click", "a")),
        ("Action:\nclick[size [us 8]]", ("click[size ", "us 8"), ("click", "size [us 8]")),
        ("Action:\nbuy[a]\nAction:\nclick[b]", ("click", "b"), ("click", "b")),
        ("Action:\nclick[]", None, None),
        ("Action:\nclick[a", None, None),
        ("Action:\nclick a", None, None),
        ("ACTION:\nclick[a]", None, None),
        ("click[a]", None, None),
        ("", None, None),
    ],
)
def test_grammar(reply: str, paper: tuple[str, str] | None, fixed: tuple[str, str] | None) -> None:
    assert find_action(reply, "paper") == paper
    assert find_action(reply, "fixed") == fixed


def test_paper_splits_whatever_its_pattern_finds() -> None:
    """Every value of up to six characters that matter to the two patterns: the second takes what the first found."""
    for length in range(1, 7):
        for value in itertools.product("[]a ", repeat=length):
            action = find_action(f"Action:\nclick[{''.join(value)}]", "paper")
            assert action is not None
            assert action[0].startswith("click")
            assert action[1]


def test_a_reply_without_action(environment: WebShopEnvironment, world: World) -> None:
    first = environment.reset(world.tasks[0])[-1]["content"]
    answer = environment.step("I do not know what to do.")
    if environment.style == "paper":
        assert (answer.done, answer.reward, answer.status, answer.text) == (True, 0.0, "invalid format", "")
        return
    assert answer.text == f"{NO_ACTION}\n\n{first}"
    for _ in range(8):
        assert not environment.step("?").done
    assert environment.step("?").status == "limit reached"


def test_an_impossible_action_changes_nothing(environment: WebShopEnvironment, world: World) -> None:
    first = environment.reset(world.tasks[0])[-1]["content"]
    for action in ("click[search]", "click[next >]", "click[b000000000]", "click[a]"):
        assert environment.step(act(action)).text == first


@pytest.mark.parametrize(
    "reply",
    [
        "Action:" + " " * 300_000,
        "Action:\n" * 50_000,
        "Action:\nsearch[" * 30_000,
        "Action:\nsearch[" + "[" * 300_000 + "]",
        "Action:\nsearch[" + "word " * 60_000 + "]",
        "Action:\nsearch[" + '" OR NEAR( * ' * 1000 + "]",
        "Action:\nsearch[\ud800\0]",
        "Action:\nclick[" + "[]" * 100_000 + "]",
    ],
    ids=lambda reply: repr(reply[:20]),
)
def test_hostile_replies_neither_crash_nor_hang(environment: WebShopEnvironment, world: World, reply: str) -> None:
    environment.reset(world.tasks[0])
    last = environment.step(reply)
    assert last.reward == 0
    assert last.done == (last.status == "invalid format")


def test_random_walks_stay_in_the_shop(environment: WebShopEnvironment, world: World) -> None:
    chance = random.Random(4)
    for task in chance.sample(list(world.tasks), 40):
        environment.reset(task)
        text = environment.step(act(f"search[{task.query}]")).text
        while text:
            values = re.findall(r"'([^']+)'", text.rpartition("'clickables': ")[2])
            last = environment.step(act(f"click[{chance.choice(values)}]"))
            assert 0 <= last.reward <= 1
            text = last.text


def test_prompt_file(tmp_path: Path, world: World) -> None:
    path = tmp_path / "prompt.json"
    path.write_text(json.dumps([{"role": "user", "content": "Shop."}, {"role": "agent", "content": "Yes."}]))
    assert opening_messages(WebShopOptions(prompt_file=path)) == [
        {"role": "user", "content": "Shop."},
        {"role": "assistant", "content": "Yes."},
    ]
    with pytest.raises(UserError, match="--prompt-style: expected one of paper, fixed, got 'short'"):
        opening_messages(WebShopOptions(prompt_style="short"))
