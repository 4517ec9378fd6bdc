"""Each rule on its own, and the sets of rules."""

import pytest

from data_prep.sharegpt.cleaning_rules import (
    RULES,
    STEPS,
    Drop,
    Repair,
    apply_steps,
    select_rules,
)
from data_prep.sharegpt.repairs import (
    Dropped,
    without_copy_buttons,
    without_regenerate_numbers,
    without_underscore_escapes,
)
from megatron_agent.chat.conversation import Turn
from megatron_agent.errors import UserError

SPEAKERS = {"h": "human", "g": "gpt", "s": "system"}
PAGE = '<div class="markdown prose"><p>Use <code>a_b</code>.</p></div>'


def turns(*texts: str) -> list[Turn]:
    """Turns from `h:text`, `g:text`, `s:text`."""
    return [Turn(SPEAKERS[text[0]], text[2:], loss=True if text[0] == "g" else None) for text in texts]


def step(name: str) -> Repair | Drop:
    return next(step for step in STEPS if step.name == name)


def repaired(name: str, *texts: str) -> list[str]:
    rule = step(name)
    assert isinstance(rule, Repair)
    return [f"{turn.speaker[0]}:{turn.value}" for turn in rule.apply(turns(*texts))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 / 2Ignore this", "Ignore this"),
        ("1 / 1\n\nHello", "Hello"),
        ("12 / 12“Quoted”", "“Quoted”"),
        ("3 / 4 cup of sugar", "3 / 4 cup of sugar"),
        ("10 / 5\n= 2", "10 / 5\n= 2"),  # the fifth of five at most
        ("1 / 2 = 0.5", "1 / 2 = 0.5"),
        ("1 / 20", "1 / 20"),
        ("1 / 2\n= 0.5", "1 / 2\n= 0.5"),
        ("1 / 2x + 3 = 5", "1 / 2x + 3 = 5"),
        ("1 / 2\n\n- item", "- item"),
        ("1 / 2I think", "I think"),
        ("see 1 / 1Text", "see 1 / 1Text"),
    ],
)
def test_regenerate_numbers(text: str, expected: str) -> None:
    assert without_regenerate_numbers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x\n```\npythonCopy codeprint(1)\n```", "x\n```python\nprint(1)\n```"),
        ("```Copy code\nls\n```", "```\nls\n```"),
        ("textCopy12 chars / 3 words end", "text end"),
        ("yaml\nCopy code\nopenapi", "yaml\nCopy code\nopenapi"),  # pasted text, not a fence
        ("The Copy code button", "The Copy code button"),
    ],
)
def test_copy_buttons(text: str, expected: str) -> None:
    assert without_copy_buttons(text) == expected


def test_a_fence_with_many_blanks_takes_no_time() -> None:
    """Quadratic, this would take hours."""
    text = "```" + " " * 1_000_000 + "Copy"
    assert without_copy_buttons(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"call get\_items and a\_b\_c", "call get_items and a_b_c"),
        (r"`a\_b` and x\_y", r"`a\_b` and x_y"),
        ("```tex\na\\_b\n```\nx\\_y", "```tex\na\\_b\n```\nx_y"),
        (r"$$a\_b$$", r"$$a\_b$$"),
        (r"\_\_init\_\_", r"\_\_init\_\_"),  # unescaped, Markdown would show it bold
        ("```\nopen fence a\\_b", "```\nopen fence a\\_b"),
        ("````md\n```py\na\\_b\n```\nc\\_d\n````\nx\\_y", "````md\n```py\na\\_b\n```\nc\\_d\n````\nx_y"),
        ("~~~\na\\_b\n~~~\nx\\_y", "~~~\na\\_b\n~~~\nx_y"),
        (r"``a\_b`` and x\_y", r"``a\_b`` and x_y"),
        (r"$v_{a\_b}$ and \(a\_b\) and x\_y", r"$v_{a\_b}$ and \(a\_b\) and x_y"),
        ("\\[\n a\\_b \n\\] x\\_y", "\\[\n a\\_b \n\\] x_y"),
        (r"\begin{align} a\_b \end{align} x\_y", r"\begin{align} a\_b \end{align} x_y"),
        (r"\text{max\_iter} is x\_y", r"\text{max\_iter} is x_y"),
        (r"C:\dir\_private\x and x\_y", r"C:\dir\_private\x and x_y"),
        (r"$5 for a\_b, $6 for c\_d", r"$5 for a_b, $6 for c_d"),
        (r"a\_b\*c https://x.y/a\_b", r"a_b\*c https://x.y/a_b"),
    ],
)
def test_underscore_escapes(text: str, expected: str) -> None:
    assert without_underscore_escapes(text) == expected


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        ("zero_width_removed", ["h:a\u200bb\ufeff\u2060", "g:\u200b"], ["h:ab", "g:"]),
        ("zero_width_removed", ["h:می\u200cخواهم 👩\u200d💻"], ["h:می\u200cخواهم 👩\u200d💻"]),
        ("html_to_markdown", ["h:is <p>x</p> a_b *it*?", f"g:{PAGE}"], ["h:is <p>x</p> a_b *it*?", "g:Use `a_b`."]),
        ("html_to_markdown", ["h:q", "g:<div id='x'>code</div>"], ["h:q", "g:<div id='x'>code</div>"]),
        ("html_to_markdown", ["h:q", f"g:{PAGE}", "h:p", "g:plain <p>"], ["h:q", "g:Use `a_b`.", "h:p", "g:plain <p>"]),
        (
            "sharing_banner_removed",
            ["s:*This chat conversation is shared from [**TypingMind.com**](x)*", "s:Be brief.", "h:q"],
            ["s:Be brief.", "h:q"],
        ),
        ("leading_non_human_turns_removed", ["g:a", "s:b", "h:q", "g:a"], ["h:q", "g:a"]),
        ("leading_non_human_turns_removed", ["s:Be brief.", "g:hi", "h:q", "g:a"], ["s:Be brief.", "h:q", "g:a"]),
        ("leading_non_human_turns_removed", ["s:Be brief.", "g:hi"], []),
        ("repeated_turns_removed", ["h:q", "h:q", "g:q", "g:a", "g:a", "h:q"], ["h:q", "g:q", "g:a", "h:q"]),
        ("neighbouring_turns_merged", ["h:a", "h: ", "h:b", "g:c", "g:d", "h:e"], ["h:a\n\nb", "g:c\n\nd", "h:e"]),
        ("neighbouring_turns_merged", ["s:a", "s:b", "h:c"], ["s:a", "s:b", "h:c"]),
        ("cut_at_empty_message", ["h:q", "g:a", "h: \u200e\n", "g:b"], ["h:q", "g:a"]),
        ("cut_at_empty_message", ["s: ", "h:q", "g:a"], ["h:q", "g:a"]),
        ("cut_at_empty_message", ["s: ", "h:q", "g:"], ["h:q"]),
        ("trailing_human_turns_removed", ["h:q", "g:a", "h:r", "h:s"], ["h:q", "g:a"]),
    ],
)
def test_repairs(rule: str, before: list[str], after: list[str]) -> None:
    assert repaired(rule, *before) == after
    assert repaired(rule, *after) == after


@pytest.mark.parametrize(
    ("rule", "dropped", "kept"),
    [
        ("too_short", ["h:1234567", "g:12345678 "], ["h:12345678", "g:12345678"]),  # 15 and 16 characters
        (
            "rate_limit_reply",
            ["h:q", "g:!Too many requests in 1 hour. Try again later."],
            ["h:Too many requests in 1 hour. Try again later.", "g:That message means ..."],
        ),
        ("blocked_words", ["h:Who made you?", "g:OpenAI did."], ["h:Open AI", "g:chat gpt"]),
        ("repeated_list_number", ["h:q", "g:x\n1. a\n1. b"], ["h:q", "g:x\n1. a\n2. b\n1. c"]),
        ("repeated_digits", ["h:q", "g:1000000000"], ["h:q", "g:100000000"]),
        ("roles_not_alternating", ["h:q", "g:a", "g:b"], ["s:p", "h:q", "g:a"]),
        ("no_exchange_left", ["s:p", "h:q"], ["h:q", "g:a"]),
    ],
)
def test_drops(rule: str, dropped: list[str], kept: list[str]) -> None:
    tested = step(rule)
    assert isinstance(tested, Drop)
    assert tested.applies(turns(*dropped))
    assert not tested.applies(turns(*kept))


def test_unparsable_html_is_dropped_by_name() -> None:
    with pytest.raises(Dropped, match=r"^unparsable_html$"):
        apply_steps(turns("h:q", "g:" + '<div class="markdown">' * 20_000), select_rules())


def test_steps_switch_off() -> None:
    conversation = turns("h:a question", "h:and another", "g:an answer")
    merged, repairs = apply_steps(conversation, select_rules())
    assert [turn.value for turn in merged] == ["a question\n\nand another", "an answer"]
    assert [rule for rule, _, _ in repairs] == ["neighbouring_turns_merged"]
    with pytest.raises(Dropped, match=r"^roles_not_alternating$"):
        apply_steps(conversation, select_rules(skipped=["neighbouring_turns_merged"]))
    with pytest.raises(Dropped, match=r"^roles_not_alternating$"):
        apply_steps(conversation, select_rules("fastchat"))


def test_sets_of_rules() -> None:
    default, fastchat = select_rules(), select_rules("fastchat")
    assert fastchat - default == {"blocked_words", "repeated_list_number", "duplicate_first_exchange"}
    assert {"near_duplicate", "zero_width_removed", "neighbouring_turns_merged"} <= default - fastchat
    required = {name for name, rule in RULES.items() if rule.required}
    assert required <= default & fastchat
    assert select_rules(added=["repeated_digits"]) == default | {"repeated_digits"}
    assert select_rules(skipped=["near_duplicate"]) == default - {"near_duplicate"}


@pytest.mark.parametrize(
    ("preset", "skipped", "added", "words"),
    [
        ("vicuna", [], [], "--rules vicuna: expected default or fastchat"),
        ("default", ["blocked"], [], "--skip-rule blocked: no rule of that name; --list-rules"),
        ("default", [], ["x"], "--add-rule x: no rule of that name"),
        ("default", ["empty_message"], [], "--skip-rule empty_message: this rule is always on"),
        ("default", ["too_short"], ["too_short"], "both name too_short"),
        ("default", ["other_language"], [], "--skip-rule other_language: give --keep-lang, or leave it out"),
        ("default", [], ["no_part_fits"], "--add-rule no_part_fits: give --max-length, or leave it out"),
    ],
)
def test_wrong_names_of_rules(preset: str, skipped: list[str], added: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        select_rules(preset, skipped, added)
    assert words in str(caught.value)
