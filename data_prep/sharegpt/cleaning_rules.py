"""The rules that turn a raw ShareGPT record into a conversation, each with the name it is counted under.

A `Repair` changes the turns, a `Drop` refuses the conversation; `STEPS` is their order. `OTHER_RULES` are applied
elsewhere: they need the record, its language, or the conversations before it. A further rule is one more entry: a
function from turns to turns, or from turns to a verdict. FastChat is lm-sys/FastChat, fastchat/data.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from data_prep.sharegpt.repairs import (
    ZERO_WIDTH,
    Dropped,
    Turns,
    converted_from_html,
    cut_at_empty,
    each_value,
    with_neighbours_merged,
    without_banners,
    without_copy_buttons,
    without_leading_non_human,
    without_regenerate_numbers,
    without_repeated_turns,
    without_trailing_human,
    without_underscore_escapes,
)
from megatron_agent.errors import UserError

DEFAULT, FASTCHAT = "default", "fastchat"
BOTH = (DEFAULT, FASTCHAT)
PRESETS = {
    DEFAULT: "repair what can be repaired, drop what cannot be trained on, duplicates and near duplicates",
    FASTCHAT: "FastChat's clean_sharegpt and filter_wrong_format: blocked words too, fewer repairs, no near duplicates",
}


@dataclass(frozen=True)
class Rule:
    """A rule by name. Without `presets` it must be asked for; a `required` one cannot be switched off."""

    name: str
    text: str
    presets: tuple[str, ...] = BOTH
    required: bool = False
    option: str = ""
    """The option of the command that switches the rule on, in place of a preset."""


@dataclass(frozen=True)
class Repair(Rule):
    """Counted when it changes the turns."""

    apply: Callable[[Turns], Turns] = lambda turns: turns


@dataclass(frozen=True)
class Drop(Rule):
    """Counted, and the conversation left out, when `applies` holds."""

    applies: Callable[[Turns], bool] = lambda turns: False


RATE_LIMIT = "Too many requests in 1 hour. Try again later."
BLOCKED_WORDS = ("openai", "chatgpt")
REPEATED_LIST_NUMBER = re.compile(r"\n1\. [^2]*\n1\. ")
REPEATED_DIGITS = re.compile(r"(\d)\1{8}")
SHORTEST_CHARACTERS = 16


def dialogue(turns: Turns) -> Turns:
    """The turns after the system prompt, if there is one."""
    return turns[1:] if turns and turns[0].speaker == "system" else turns


def roles_alternate(turns: Turns) -> bool:
    """Whether turns are human, gpt, human, gpt, ..., after an optional system turn."""
    return all(turn.speaker == ("gpt" if i % 2 else "human") for i, turn in enumerate(dialogue(turns)))


def has_rate_limit_reply(turns: Turns) -> bool:
    """Whether an answer is ChatGPT's refusal to answer more often."""
    return any(turn.speaker == "gpt" and turn.value.removeprefix("!").startswith(RATE_LIMIT) for turn in turns)


def has_blocked_word(turns: Turns) -> bool:
    """Whether a message names OpenAI or ChatGPT."""
    return any(word in turn.value.lower() for turn in turns for word in BLOCKED_WORDS)


def any_value(pattern: re.Pattern[str]) -> Callable[[Turns], bool]:
    """A verdict: whether some message holds the pattern."""
    return lambda turns: any(pattern.search(turn.value) for turn in turns)


STEPS: tuple[Repair | Drop, ...] = (
    Drop("no_messages", "an empty conversation", required=True, applies=lambda turns: not turns),
    Drop("single_message", "one message only", required=True, applies=lambda turns: len(turns) == 1),
    Repair("html_to_markdown", "answers in the web page's HTML become Markdown", apply=converted_from_html),
    Repair(
        "regenerate_numbers_removed",
        '"2 / 3" of the page before a message goes',
        apply=each_value(without_regenerate_numbers),
    ),
    Repair(
        "copy_buttons_removed",
        '"Copy code", "Copy12 chars / 3 words" of the page go',
        apply=each_value(without_copy_buttons),
    ),
    Repair(
        "zero_width_removed",
        "zero-width space, word joiner and byte order mark go (joiners that scripts and emoji need stay)",
        (DEFAULT,),
        apply=each_value(lambda text: ZERO_WIDTH.sub("", text)),
    ),
    Repair(
        "underscore_escapes_removed",
        r"a\_b becomes a_b outside code, formulas and paths",
        (DEFAULT,),
        apply=each_value(without_underscore_escapes),
    ),
    Repair("sharing_banner_removed", "system turns of TypingMind and ChatHub go", apply=without_banners),
    Repair(
        "leading_non_human_turns_removed",
        "what stands before the first human turn goes (later parts of split conversations)",
        apply=without_leading_non_human,
    ),
    Repair("repeated_turns_removed", "a turn twice in a row stays once", (DEFAULT,), apply=without_repeated_turns),
    Repair(
        "neighbouring_turns_merged",
        "two turns of one speaker in a row become one",
        (DEFAULT,),
        apply=with_neighbours_merged,
    ),
    Repair(
        "cut_at_empty_message",
        "an empty system prompt goes; the conversation ends before another empty message",
        apply=cut_at_empty,
    ),
    Repair("trailing_human_turns_removed", "unanswered questions at the end go", apply=without_trailing_human),
    Drop(
        "no_exchange_left",
        "no question with an answer is left",
        required=True,
        applies=lambda turns: len(dialogue(turns)) < 2,
    ),
    Drop(
        "empty_message",
        "a blank message inside",
        required=True,
        applies=lambda turns: any(not turn.value.strip() for turn in turns),
    ),
    Drop(
        "roles_not_alternating",
        "not human, gpt, human, gpt, ...",
        required=True,
        applies=lambda turns: not roles_alternate(turns),
    ),
    Drop(
        "too_short",
        f"under {SHORTEST_CHARACTERS} characters in all messages together",
        applies=lambda turns: sum(len(turn.value.strip()) for turn in turns) < SHORTEST_CHARACTERS,
    ),
    Drop("rate_limit_reply", f'an answer begins "{RATE_LIMIT}"', applies=has_rate_limit_reply),
    Drop("blocked_words", "a message names " + " or ".join(BLOCKED_WORDS), (FASTCHAT,), applies=has_blocked_word),
    Drop(
        "repeated_list_number",
        "a numbered list with the number 1 twice (FastChat's filter_wrong_format)",
        (FASTCHAT,),
        applies=any_value(REPEATED_LIST_NUMBER),
    ),
    Drop(
        "repeated_digits",
        "a digit nine times in a row (FastChat's optional_clean --reduce-rep)",
        (),
        applies=any_value(REPEATED_DIGITS),
    ),
)

OTHER_RULES: tuple[Rule, ...] = (
    Rule("wrong_schema", "in none of the layouts", required=True),
    Rule("unknown_role", "a role name that is not known", required=True),
    Rule("lone_surrogate", "text that is not Unicode", required=True),
    Rule("no_id", "no id, with missing_id_made switched off", required=True),
    Rule("unparsable_html", "HTML that the parser refuses", required=True),
    Rule("no_part_fits", "no exchange of the conversation is within --max-length", (), option="--max-length"),
    Rule("missing_id_made", "a record without id gets <file name>#<record number>", (DEFAULT,)),
    Rule("role_names_mapped", "user to human; chatgpt, assistant, bing, bard to gpt", (DEFAULT,)),
    Rule("plugin_conversation", "the record has plugins"),
    Rule("other_language", "another language than --keep-lang", (), option="--keep-lang"),
    Rule("duplicate_id", "the id of a conversation kept before"),
    Rule("duplicate_conversation", "the same turns as a conversation kept before"),
    Rule("duplicate_first_exchange", "the same first question and answer as one kept before", (FASTCHAT,)),
    Rule("near_duplicate", "nearly the text of a conversation kept before (MinHash)", (DEFAULT,)),
)

RULES = {rule.name: rule for rule in (*OTHER_RULES, *STEPS)}


def select_rules(preset: str = DEFAULT, skipped: Iterable[str] = (), added: Iterable[str] = ()) -> frozenset[str]:
    """The names of the rules to apply. Raises `UserError` for an unknown name and a required one that is skipped."""
    if preset not in PRESETS:
        raise UserError(f"--rules {preset}: expected {' or '.join(PRESETS)}")
    skipped, added = set(skipped), set(added)
    for flag, names in (("--skip-rule", skipped), ("--add-rule", added)):
        for name in sorted(names):
            if name not in RULES:
                raise UserError(f"{flag} {name}: no rule of that name; --list-rules shows them")
            if RULES[name].option:
                raise UserError(f"{flag} {name}: give {RULES[name].option}, or leave it out, for this rule")
            if RULES[name].required:
                raise UserError(f"{flag} {name}: this rule is always on, since what it drops cannot be trained on")
    if both := skipped & added:
        raise UserError(f"--skip-rule and --add-rule both name {min(both)}; give one")
    chosen = {name for name, rule in RULES.items() if rule.required or preset in rule.presets}
    return frozenset((chosen | added) - skipped)


def apply_steps(turns: Turns, rules: frozenset[str]) -> tuple[Turns, list[tuple[str, Turns, Turns]]]:
    """Run the `STEPS` that `rules` names; return the turns and (rule, before, after) of the repairs made.

    Raises :class:`Dropped`.
    """
    repairs: list[tuple[str, Turns, Turns]] = []
    for step in STEPS:
        if step.name not in rules:
            continue
        if isinstance(step, Drop):
            if step.applies(turns):
                raise Dropped(step.name)
            continue
        repaired = step.apply(turns)
        if repaired != turns:
            repairs.append((step.name, turns, repaired))
        turns = repaired
    return turns, repairs


def format_rules() -> str:
    """The list of rules for the terminal."""
    lines = [f"{name}: {text}" for name, text in PRESETS.items()]
    lines.append("")
    for rule in RULES.values():
        where = "always" if rule.required else rule.option or ", ".join(rule.presets) or "--add-rule"
        lines.append(f"{rule.name:<34}{where:<20}{rule.text}")
    return "\n".join(lines)
