"""Mis-joined replies: bar of the issue on Mind2Web's sample, with replies moved between rows at random.

Mind2Web's sample has 150 different steps, each with a model's description of page and next action (`gpt_output`) and
the gold action. Three kinds of conversations in the released form are made of them: with the model's description as
the thought, with its one sentence about the next step, and with a thought that only names the gold element. 30 % of
the rows get another row's reply, half of those from the same website or domain. The rule's constants were chosen on
one half of the websites (`chosen`), so precision and recall are asserted on the other half (`judged`), over ten seeds.
"""

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from data_prep.agentinstruct.audit_mis_joined import find_mis_joined
from megatron_agent.chat.conversation import Conversation, Turn

Step = dict[str, Any]
SEEDS = range(10)
SHARE = 0.3


def released_form(step: Step, number: int, rng: random.Random, kind: str) -> Step:
    """Return a step as question and reply of the released form, five of its elements being the choices."""
    previous = re.search(r"Previous Actions:\n(.*?)\n\nThe screenshot", step["prompt"][1], re.DOTALL)
    elements = [text for _, text in re.findall(r"^([A-Q])\. (.*)$", step["prompt"][2], re.MULTILINE)]
    description, answer = step["gpt_output"]
    chosen = ord(re.search(r"ELEMENT: ([A-S])", answer + "ELEMENT: S")[1]) - ord("A")  # type: ignore[index]
    others = [index for index in range(len(elements)) if index != chosen]
    shown = sorted([*rng.sample(others, 4), chosen]) if chosen < len(elements) else rng.sample(others, 5)
    letter = chr(ord("B") + shown.index(chosen)) if chosen < len(elements) else "A"
    action = re.search(r"ACTION: (\w+)", answer)
    value = re.search(r"VALUE: (.*)", answer)
    thought = " ".join(description.split())
    if kind == "sentence":
        sentences = re.findall(r"[^.]+\.(?:\d[^.]*\.)*", thought) or [thought]
        thought = next((s for s in sentences if re.search(r"next (action|step)|should|would|need", s)), sentences[-1])
    if kind == "element":
        gold = re.match(r"\[.*?\]\s+(.*?)\s*-> (\w+)(?:: (.*))?", step["target_action_reprs"], re.DOTALL)
        name, verb, value_text = gold.groups() if gold else ("", "CLICK", None)
        thought = f"I need to select {value_text} for {name}." if value_text else f"I need to click on the {name}."
        words = set(re.findall(r"\w+", name.lower()))
        shared = [len(words & set(re.findall(r"\w+", elements[index].lower()))) for index in shown]
        letter = chr(ord("B") + shared.index(max(shared))) if max(shared) else "A"
        action, value = re.match(r"(\w+)", verb), re.match(r"(.*)", value_text or "")
        action = re.match(r"()(CLICK|TYPE|SELECT)", verb) and action
    reply = f"Thought: {thought.strip()}\nAnswer: {letter}."
    if letter != "A" and action:
        reply += f"\nAction: {action[1]}"
        if value and action[1] != "CLICK":
            reply += "\nValue: " + value[1].strip().strip('"')
    choices = "\n".join(f"{chr(ord('B') + place)}. {elements[index]}" for place, index in enumerate(shown))
    question = (
        f"'''\n<html> {' '.join(elements)} </html>\n'''\n\nBased on the HTML webpage above, try to complete the "
        f"following task:\nTask: {step['confirmed_task']}\nPrevious actions:\n{previous[1] if previous else 'None'}\n"
        "What should be the next action? Please select from the following choices (If the correct action is not in the "
        f"page above, please select A. 'None of the above'):\n\nA. None of the above\n{choices}"
    )
    return {"id": f"mind2web_{number}", "question": question, "reply": reply, "site": step["website"]} | {
        "domain": step["domain"]
    }


def halves(shared_data: Path, kind: str) -> tuple[list[Step], list[Step]]:
    """Return the different steps of the sample in two halves that share no website: chosen on, judged on."""
    sample = json.loads((shared_data / "mind2web" / "sample_labeled_all.json").read_text())
    steps = list({step["action_uid"]: step for step in sample}.values())
    rng = random.Random(0)
    rows = [released_form(step, number, rng, kind) for number, step in enumerate(steps)]
    sites = sorted({row["site"] for row in rows})
    random.Random(0).shuffle(sites)
    chosen = set(sites[::2])
    return [row for row in rows if row["site"] in chosen], [row for row in rows if row["site"] not in chosen]


def plant(rows: list[Step], strangers: list[Step] | None, seed: int) -> tuple[list[Conversation], set[str]]:
    """Give 30 % of the rows another reply: of rows of the same file, half of them neighbours, or of `strangers`."""
    rng = random.Random(seed)
    moved = rng.sample(range(len(rows)), round(SHARE * len(rows)))
    replies = [row["reply"] for row in rows]
    if strangers:
        for index in moved:
            replies[index] = rng.choice(strangers)["reply"]
    else:
        near = sorted(moved[: len(moved) // 2], key=lambda index: (rows[index]["domain"], rows[index]["site"]))
        for group in (near, moved[len(moved) // 2 :]):
            for index, other in zip(group, group[1:] + group[:1], strict=True):
                replies[index] = rows[other]["reply"]
    conversations = [
        Conversation(row["id"], (Turn("human", row["question"]), Turn("gpt", reply, loss=True)))
        for row, reply in zip(rows, replies, strict=True)
    ]
    return conversations, {rows[index]["id"] for index in moved}


def precision_and_recall(rows: list[Step], strangers: list[Step] | None = None) -> npt.NDArray[np.float64]:
    """Return [seed, (precision, recall)]."""
    scores = []
    for seed in SEEDS:
        conversations, planted = plant(rows, strangers, seed)
        found = {finding.id for finding in find_mis_joined(conversations).findings}
        scores.append((len(found & planted) / max(len(found), 1), len(found & planted) / len(planted)))
    return np.array(scores)


@pytest.mark.parametrize("from_elsewhere", [False, True])
def test_bar_on_descriptions(shared_data: Path, from_elsewhere: bool) -> None:
    chosen, judged = halves(shared_data, "description")
    scores = precision_and_recall(judged, chosen if from_elsewhere else None)
    print(f"\ndescriptions, elsewhere {from_elsewhere}: mean {scores.mean(0)}, worst {scores.min(0)}")
    assert (scores.mean(0) >= 0.9).all()
    assert (scores.min(0) >= 0.85).all()


def test_one_sentence_says_less(shared_data: Path) -> None:
    """Truth: measured; stated in docs/data.md. A change of the method that loses much shows here."""
    chosen, judged = halves(shared_data, "sentence")
    scores = precision_and_recall(judged)
    print(f"\nsentences: mean {scores.mean(0)}, worst {scores.min(0)}; chosen {precision_and_recall(chosen).mean(0)}")
    assert (scores.mean(0) >= (0.85, 0.7)).all()


def test_nothing_planted_nothing_flagged(shared_data: Path) -> None:
    for half in halves(shared_data, "description"):
        conversations, _ = plant(half, None, 0)
        clean = [
            Conversation(row["id"], (Turn("human", row["question"]), Turn("gpt", row["reply"], loss=True)))
            for row in half
        ]
        assert len(find_mis_joined(clean).findings) <= 1
        assert len(find_mis_joined(conversations).findings) > 15


def test_too_few_rows_and_other_forms_are_not_judged() -> None:
    rows = [Conversation(f"mind2web_{i}", (Turn("human", "a page"), Turn("gpt", "Answer: A."))) for i in range(30)]
    result = find_mis_joined(rows)
    assert (result.findings, result.judged, result.undecided) == ([], 0, [])


def test_the_name_of_the_element_alone_says_little(shared_data: Path) -> None:
    """Truth: measured. `I need to click on the Search.` fits many pages; most such replies cannot be told."""
    _, judged = halves(shared_data, "element")
    scores = precision_and_recall(judged)
    print(f"\nelements: mean {scores.mean(0)}, worst {scores.min(0)}")
    assert 0.3 < scores.mean(0)[1] < 0.9
