"""Replies as AgentTuning's evaluator reads them, and output as it tells it."""

import pytest

from megatron_agent.environments.operating_system.grammar import Action, clean_output, feedback, find_action


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Think: x\n\nAct: bash\n\n```bash\nls\n```", Action("bash", "ls")),
        ("Act: bash\n```bash\na\n```\nand\n```bash\nb\nc\n```", Action("bash", "a\n\nb\nc")),
        ("```bash\na\n```\nAct: bash", Action("bash", "a")),
        ("Act: bash\n\nls", Action("bash", "")),
        ("Act: bash\n```bash\nls", Action("bash", "")),
        ("Act: finish", Action("commit", None)),
        ("Act: FINISHED now", Action("commit", None)),
        ("Act: answer(220)", Action("commit", "220")),
        ("Act: answer(a (b) c) and so on", Action("commit", "a (b) c")),
        ("Act: answer()", Action("commit", "")),
        ("Act: answer 220", None),
        ("Act: answer(1)\nAct: answer 2", Action("commit", "1")),
        ("Act: answer(1)\nAct: dance", Action("commit", "1")),
        ("Act: bash\n```bash\nls\n```\nAct: answer(1)", Action("commit", "1")),
        ("Act:\n\nfinish", Action("commit", None)),
        ("act: finish", None),
        ("", None),
        ("Act: )(", None),
    ],
)
def test_find_action(reply: str, expected: Action | None) -> None:
    assert find_action(reply) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Act: bash\n\nls", None),
        ("Act: bash\n```bash\nls", Action("bash", "ls")),
        ("Act: bash\n```sh\nls\n```", Action("bash", "ls")),
        ("Act: bash\n```\nls\n```", Action("bash", "ls")),
        ("Act: answer(220)", Action("commit", "220")),
    ],
)
def test_find_action_fixed(reply: str, expected: Action | None) -> None:
    assert find_action(reply, "fixed") == expected


def test_feedback() -> None:
    assert feedback("a\nb\n") == "The output of the OS:\n\na\nb"
    assert feedback("\n") == "The output of the OS is empty."
    assert feedback("x" * 800) == "The output of the OS:\n\n" + "x" * 800
    cut = "x" * 780 + "\n[truncated because the output is too long]"
    assert feedback("x" * 801) == "The output of the OS:\n\n" + cut


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b[?2004hroot\x1b(B", "root"),
        ("10%\r50%\r\nend", "10%\n50%\nend"),
        ("bell\x07 null\x00 tab\t", "bell null tab\t"),
        ("\x1bPdevice\x1b\\a", "a"),
        ("ends in \x1b[", "ends in "),
        ("é 中", "é 中"),
    ],
)
def test_clean_output(raw: str, clean: str) -> None:
    assert clean_output(raw) == clean


def test_hostile_replies_take_linear_time() -> None:
    for text in (
        "Act: " * 50_000,
        "```bash\n" * 50_000,
        "```bash\nx" * 50_000,
        "\x1b[" * 50_000,
        "\x1b]" * 50_000,
        "Act:\n" * 50_000,
    ):
        find_action(text)
        find_action(text, "fixed")
        clean_output(text)
