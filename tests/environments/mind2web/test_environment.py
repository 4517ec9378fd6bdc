"""The tournament, the reading of replies, and the ways an episode ends."""

from collections.abc import Sequence

import pytest

from megatron_agent.agents.client import ScriptedClient
from megatron_agent.agents.episode import play
from megatron_agent.environments.base import EpisodeOver, Message
from megatron_agent.environments.mind2web.environment import MAX_ATTEMPTS, Mind2WebEnvironment
from megatron_agent.environments.mind2web.page import Page
from megatron_agent.environments.mind2web.question import (
    GRAMMAR,
    Answer,
    AnswerError,
    gold_action,
    read_answer,
    read_answer_strictly,
)
from megatron_agent.environments.mind2web.task import Mind2WebTask
from megatron_agent.environments.mind2web.tournament import Tournament
from megatron_agent.errors import UserError
from tests.environments.mind2web.pages import make_action

DEMONSTRATIONS = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": "an answer"}]


def make_task(gold: Sequence[str] = ("3",), candidates: str = "5 7 1 0 9 3 2 8 6 4", op: str = "CLICK") -> Mind2WebTask:
    return Mind2WebTask(
        id="task_u0",
        website="linkland",
        domain="Info",
        confirmed_task="Follow the third link",
        previous_actions=tuple(f"[a]  step {n} -> CLICK" for n in range(7)),
        operation=op,
        value="" if op == "CLICK" else "two words",
        page=Page.from_html(make_action()["cleaned_html"]),
        gold=tuple(gold),
        candidates=tuple(candidates.split()),
    )


def start(task: Mind2WebTask | None = None, style: str = "paper") -> tuple[Mind2WebEnvironment, list[Message]]:
    environment = Mind2WebEnvironment(DEMONSTRATIONS, style)
    return environment, environment.reset(task or make_task())


def offered(question: str) -> list[str]:
    """The titles of the links that are choices."""
    return [line.split()[3] for line in question.splitlines() if line[:2] in ("B.", "C.", "D.", "E.", "F.")]


def test_the_first_question_word_for_word() -> None:
    messages = start(make_task(candidates="3 1"))[1]
    assert messages[:2] == DEMONSTRATIONS
    assert messages[2] == {
        "role": "user",
        "content": "'''\n"
        "<html> <a link0> go 0 </a> <a id=0 link1> go 1 </a> <a link2> go 2 </a> <a id=1 link3> go 3 </a> "
        "<a link4> go 4 </a> <a link5> go 5 </a> <a link6> go 6 </a> </html>\n"
        "'''\n"
        "\n"
        "Based on the HTML webpage above, try to complete the following task:\n"
        "Task: Follow the third link\n"
        "Previous actions:\n"
        "[a]  step 2 -> CLICK\n"
        "[a]  step 3 -> CLICK\n"
        "[a]  step 4 -> CLICK\n"
        "[a]  step 5 -> CLICK\n"
        "[a]  step 6 -> CLICK\n"
        "What should be the next action? Please select from the following choices (If the correct action is not in "
        "the page above, please select A. 'None of the above'):\n"
        "\n"
        "A. None of the above\n"
        "B. <a id=0 link1> go 1 </a>\n"
        "C. <a id=1 link3> go 3 </a>\n",
    }


def test_a_tournament_by_hand() -> None:
    environment, messages = start()
    assert offered(messages[-1]["content"]) == ["link0>", "link1>", "link5>", "link7>", "link9>"]  # as on the page
    observation = environment.step("Answer: C.\nAction: CLICK")  # link1 goes to the pool's end
    assert observation.restart
    assert not observation.done
    assert offered(observation.text) == ["link2>", "link3>", "link4>", "link6>", "link8>"]
    observation = environment.step("Answer: C.\nAction: CLICK")
    assert offered(observation.text) == ["link1>", "link3>"]
    observation = environment.step("Answer: C.\nAction: CLICK\nValue: ")
    assert (observation.done, observation.status, observation.reward) == (True, "completed", 1.0)
    assert observation.scores == {"step_sr": 1.0, "element_acc": 1.0, "action_f1": 1.0, "gold_in_top10": 1.0}
    with pytest.raises(RuntimeError):
        environment.step("Answer: C.")


@pytest.mark.parametrize(
    ("replies", "scores", "status"),
    [
        (["Answer: A.", "Answer: C. Action: CLICK"], (1, 1, 1), "completed"),
        (["Answer: A.", "Answer: C."], (0, 1, 0), "completed"),  # no action
        (
            ["Answer: A.", "Answer: C. Action: CLICK Value: go"],
            (0, 1, 2 / 3),
            "completed",
        ),  # paper: a CLICK has a value
        (["Answer: A.", "Answer: B. Action: CLICK"], (0, 0, 1), "completed"),
        (["Answer: A.", "Answer: A."], (0, 0, 0), "invalid action"),
        (["Answer: B.", "Answer: C. Action: CLICK", "Answer: A."], (0, 0, 0), "invalid action"),  # all dropped at last
        (["Answer: B. Action: CLICK", "Answer: A."], (0, 0, 1), "completed"),  # the first winner stands alone
        (["", "no answer at all"], (0, 0, 0), "invalid action"),
        (["Answer: G", "Answer: Cat. Action: CLICKED"], (1, 1, 1), "completed"),  # only the letter counts
        (["Answer: A.", "Answer: C. Action: CLICK Answer: B."], (1, 1, 1), "completed"),  # the first of two
        (["answer: C", "Answer:  C"], (0, 0, 0), "invalid action"),
    ],
)
def test_paper_replies(replies: list[str], scores: tuple[float, ...], status: str) -> None:
    environment, _ = start()
    for reply in replies:
        observation = environment.step(reply)
    assert observation.done
    names = ("step_sr", "element_acc", "action_f1")
    assert tuple(observation.scores[name] for name in names) == pytest.approx(scores)
    assert (observation.reward, observation.status) == (scores[0], status)


def test_typed_values() -> None:
    for value, f1 in (("two words", 1), ("words two", 1), ("two", 0.8), ("two words more", 6 / 7)):
        environment, _ = start(make_task(op="TYPE", candidates="3 1"))
        observation = environment.step(f"Answer: C.\nAction: TYPE\nValue: {value}")
        assert observation.scores["action_f1"] == pytest.approx(f1)
        assert observation.reward == (f1 == 1)


def test_a_letter_beyond_the_choices_drops_the_batch() -> None:
    environment, _ = start(make_task(candidates="3 1 5"))
    assert environment.step("Answer: F. Action: CLICK").status == "invalid action"


def test_every_question_stands_alone() -> None:
    """The loop sends the demonstrations and the newest question, nothing of the earlier ones."""
    seen: list[list[Message]] = []

    def respond(messages: Sequence[Message]) -> str:
        seen.append(list(messages))
        return "Answer: B.\nAction: CLICK"

    trajectory = play(Mind2WebEnvironment(DEMONSTRATIONS), make_task(), ScriptedClient(respond))
    assert [len(messages) for messages in seen] == [3, 3, 3]
    assert all(messages[:2] == DEMONSTRATIONS for messages in seen)
    assert len({messages[-1]["content"] for messages in seen}) == 3
    assert trajectory.rounds == 3
    assert [message["role"] for message in trajectory.messages] == ["user", "assistant"] * 4


@pytest.mark.parametrize("task", [make_task(gold=()), make_task(candidates="3")])
@pytest.mark.parametrize("style", ["paper", "fixed"])
def test_steps_that_cannot_succeed_are_not_asked(task: Mind2WebTask, style: str) -> None:
    client = ScriptedClient(["Answer: B.\nAction: CLICK"])
    trajectory = play(Mind2WebEnvironment(DEMONSTRATIONS, style), task, client)
    assert (trajectory.status, trajectory.reward, trajectory.rounds) == ("completed", 0.0, 0)
    assert trajectory.scores == {
        "step_sr": 0.0,
        "element_acc": 0.0,
        "action_f1": 0.0,
        "gold_in_top10": float(bool(task.gold)),
    }
    [message] = trajectory.messages
    assert message["content"].startswith("Not asked: ")
    environment = Mind2WebEnvironment(DEMONSTRATIONS, style)
    with pytest.raises(EpisodeOver):
        environment.reset(task)
    environment.close()
    assert environment.reset(make_task())  # the environment can be used again


def test_stop_counts_what_is_left_as_none_of_the_above() -> None:
    environment, _ = start(make_task(gold=["1"]))
    environment.step("Answer: C.\nAction: CLICK")  # link1; five others and it are left
    observation = environment.stop("context limit")
    assert (observation.done, observation.status, observation.reward) == (True, "context limit", 1.0)
    environment.close()
    environment.close()
    assert environment._dom is None  # pages are large
    with pytest.raises(RuntimeError):
        environment.stop("repetition")

    environment, _ = start(make_task(gold=["1"]))
    environment.step("Answer: C.\nAction: CLICK")
    observation = environment.stop("task error")
    assert (observation.reward, observation.scores["element_acc"]) == (0.0, 0.0)
    environment.reset(make_task())
    assert environment.stop("context limit").reward == 0.0


def test_tournaments_of_every_size() -> None:
    """Whoever is right wins if chosen whenever offered, unless it is the one left over that nobody asks about."""
    for size in range(2, 24):
        for right in range(size):
            tournament = Tournament([str(n) for n in range(size)])
            questions = 0
            while batch := tournament.next_batch():
                questions += 1
                if str(right) in batch:
                    tournament.choose(str(right), "CLICK")
            left_over = size % 5 == 1 and right == size - 1
            assert tournament.prediction == (None if left_over else (str(right), "CLICK"))
            assert questions <= size
    assert Tournament([]).next_batch() == []
    assert Tournament([]).prediction is None


def test_fixed_tells_what_is_missing_and_asks_again() -> None:
    environment, messages = start(style="fixed")
    assert messages[-1]["content"].endswith("F. <a id=4 link9> go 9 </a>\n" + GRAMMAR)
    observation = environment.step("I would click the third link.")
    assert (observation.done, observation.restart) == (False, False)
    assert observation.text.startswith(
        "The reply cannot be used: it has no line `Answer:` with one of the letters A to F."
    )
    observation = environment.step("Answer: A.")
    assert observation.restart
    assert "there is no choice" not in observation.text
    for reply, words in (
        ("Answer: C.", "with answer C it needs a line `Action:`"),
        ("Answer: C.\nAction: TYPE", "with action TYPE it needs a line `Value:`"),
    ):
        observation = environment.step(reply)
        assert words in observation.text
    observation = environment.step("**Answer:** c\n**Action:** click\nValue: None")
    assert (observation.done, observation.reward) == (True, 1.0)


def test_fixed_gives_up_after_three_attempts() -> None:
    environment, _ = start(make_task(candidates="3 1 5"), style="fixed")
    for _ in range(MAX_ATTEMPTS - 1):
        observation = environment.step("Answer: F.\nAction: CLICK")
        assert "there is no choice F; the choices are A to D" in observation.text
    observation = environment.step("?")
    assert (observation.done, observation.status) == (True, "invalid action")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Thought: x\nAnswer: C.\nAction: SELECT\nValue: 2 travellers", Answer("C", "SELECT 2 travellers")),
        ("Answer: A.", Answer("A", "")),
        ("Answer: A", Answer("A", "")),
        ("- Answer: (b)\n- Action: type\n- Value:  x y ", Answer("B", "TYPE x y")),
        ("Answer:\nD\nAction: CLICK", Answer("D", "CLICK")),
        ("Answer: B. <a id=0 link1> go 1 </a>\nAction: CLICK", Answer("B", "CLICK")),
        ("Answer: **c**  \r\nAction: CLICK", Answer("C", "CLICK")),
        ("Answer: a dropdown\nAnswer: D\nAction: CLICK", Answer("D", "CLICK")),
        ("Thought: my Answer: E fits\nAnswer: B\nAction: CLICK\nValue: no", Answer("B", "CLICK")),
    ],
)
def test_fixed_replies(reply: str, answer: Answer) -> None:
    assert read_answer_strictly(reply, 5) == answer


@pytest.mark.parametrize(
    "reply",
    ["", "C", "Answer B", "Answer: G", "Answer: Apple", "Answer: a dropdown", "Answer: A dropdown", "Answer: C or D"],
)
def test_fixed_refuses(reply: str) -> None:
    with pytest.raises(AnswerError, match="it has no line `Answer:` with one of the letters A to F"):
        read_answer_strictly(f"{reply}\nAction: CLICK", 5)


def test_fixed_refuses_an_unknown_action() -> None:
    with pytest.raises(AnswerError, match="needs a line `Action:`"):
        read_answer_strictly("Answer: B\nAction: HOVER", 5)


def test_long_hostile_replies_are_read_quickly() -> None:
    for reply in (
        "Answer" * 50_000,
        "Answer: " * 50_000,
        "Answer: a" * 50_000 + " ." * 100_000 + "b",
        "\n" * 200_000,
        "Answer" + " " * 200_000,
        "*" * 200_000 + "Answer",
    ):
        read_answer(reply)
        with pytest.raises(AnswerError):
            read_answer_strictly(reply, 5)


def test_gold_actions() -> None:
    """As AgentBench reads them out of the answer it writes down."""
    for operation, value in (
        ("CLICK", "x"),
        ("TYPE", "two words"),
        ("SELECT", " 2 adults "),
        ("TYPE", ""),
        ("TYPE", "a\nb"),
    ):
        written = f"B.\nAction: {operation}\n" + ("" if operation == "CLICK" else f"Value: {value}")
        assert gold_action(operation, value).split() == read_answer(written).action.split()


def test_unknown_style() -> None:
    with pytest.raises(UserError, match="--prompt-style: expected one of paper, fixed, got 'own'"):
        Mind2WebEnvironment(DEMONSTRATIONS, "own")
