"""BLEU matching against the evaluator's rule written out in full."""

import random

import pytest

from megatron_agent.environments.action_matching import match_action

ADMISSIBLE = [
    "close fridge 1",
    "examine apple 1",
    "examine fridge 1",
    "go to cabinet 1",
    "go to cabinet 2",
    "go to countertop 1",
    "inventory",
    "look",
    "put apple 1 in/on fridge 1",
    "take apple 2 from fridge 1",
]


def evaluators_choice(text: str, choices: list[str]) -> str | None:
    """`process_action` of AgentBench.old, as the specification tells it: every choice scored, first maximum."""
    bleu = pytest.importorskip("nltk.translate.bleu_score", reason="pip install nltk")
    if text in choices:
        return text
    scores = [
        bleu.sentence_bleu([choice.split()], text.split(), smoothing_function=bleu.SmoothingFunction().method4)
        for choice in choices
    ]
    best = max(range(len(choices)), key=lambda index: (scores[index], -index))
    return choices[best] if scores[best] > 0.01 else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("go to cabinet 1", "go to cabinet 1"),
        ("go to the cabinet 2", "go to cabinet 2"),
        ("put apple 1 in fridge 1", "put apple 1 in/on fridge 1"),
        ("i open the fridge", "close fridge 1"),
        ("cabinet", "go to cabinet 1"),  # a tie: the first
        ("inventory.", None),
        ("dance", None),
        ("", None),
    ],
)
def test_known_texts(text: str, expected: str | None) -> None:
    assert match_action(text, ADMISSIBLE) == expected == evaluators_choice(text, ADMISSIBLE)


def test_random_texts_as_the_evaluator() -> None:
    generator = random.Random(0)
    words = [*sorted({word for action in ADMISSIBLE for word in action.split()}), "the", "now", "a", "then"]
    for length in [*range(1, 12)] * 20 + [60, 300, 420, 480, 700]:
        text = " ".join(generator.choices(words, k=length))
        assert match_action(text, ADMISSIBLE) == evaluators_choice(text, ADMISSIBLE), text


def test_endless_text_and_no_actions() -> None:
    assert match_action("go to " * 200_000, ADMISSIBLE) is None  # scored one by one it would take minutes
    assert match_action("look", []) is None
