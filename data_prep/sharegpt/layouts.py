"""The layouts in which ShareGPT conversations are published, and the names they give to models.

Sources: `anon8231489123/ShareGPT_Vicuna_unfiltered` (V3, and the raw dump whose answers are HTML), FastChat's raw
dump (`model`, `plugins`), OpenChat's `sharegpt_clean.json` (`items`, `model`; imoneoi/openchat, ochat/data) and its
later `role`/`content` messages.
"""

from dataclasses import dataclass, field
from typing import Any

from data_prep.sharegpt.html_markdown import is_html_answer
from megatron_agent.chat.conversation import find_lone_surrogate

MESSAGE_KEYS = {"conversations": "sharegpt", "items": "openchat"}
"""Where a record keeps its messages, and what its layout is called."""

ROLES = {
    "human": "human",
    "user": "human",
    "gpt": "gpt",
    "chatgpt": "gpt",
    "assistant": "gpt",
    "bing": "gpt",
    "bard": "gpt",
    "system": "system",
}

MODEL_FAMILIES = {
    "gpt-4": (
        "gpt-4",
        "gpt4",
        "gpt-4-0314",
        "gpt-4-0613",
        "gpt-4-32k",
        "gpt-4-32k-0314",
        "gpt-4-32k-0613",
        "gpt-4-browsing",
        "gpt-4-plugins",
        "gpt-4-code-interpreter",
        "gpt-4-1106-preview",
        "gpt-4-turbo",
    ),
    "gpt-3.5": (
        "gpt-3.5",
        "gpt3.5",
        "gpt-35-turbo",
        "gpt-3.5-turbo",
        "gpt-3.5-turbo-0301",
        "gpt-3.5-turbo-0613",
        "gpt-3.5-turbo-16k",
        "gpt-3.5-turbo-16k-0613",
        "text-davinci-002-render",
        "text-davinci-002-render-sha",
        "text-davinci-002-render-paid",
        "default (gpt-3.5)",
        "legacy (gpt-3.5)",
        # ChatGPT's menu until GPT-4 joined it in March 2023
        "default",
        "legacy",
        "turbo",
    ),
}
"""Model names as they come, in lower case and without a leading "Model:", by the family that is written."""

FAMILY_OF_NAME = {name: family for family, names in MODEL_FAMILIES.items() for name in names}


class UnknownLayoutError(ValueError):
    """A record is in none of the layouts; the argument says what is wrong."""


@dataclass
class RawRecord:
    """A record as it came, whatever its layout."""

    layout: str
    """`sharegpt` or `openchat`, with `_html` when an answer is a web page's."""
    identifier: str | None
    messages: list[tuple[str, str]] = field(default_factory=list)
    """(role, text); an OpenChat system prompt comes first, with the role `system`."""
    model: str | None = None
    has_plugins: bool = False


def read_raw_record(record: object) -> RawRecord:
    """Read a decoded record. Raises `UnknownLayoutError`."""
    if not isinstance(record, dict):
        raise UnknownLayoutError(f"expected an object, got {type(record).__name__}")
    key = next((key for key in MESSAGE_KEYS if isinstance(record.get(key), list)), None)
    if key is None:
        raise UnknownLayoutError(f"expected a list under {' or '.join(MESSAGE_KEYS)}; keys {', '.join(record)[:80]}")
    messages = [read_message(message, number) for number, message in enumerate(record[key], start=1)]
    layout = MESSAGE_KEYS[key]
    if any(is_html_answer(text) for role, text in messages if ROLES.get(role.lower()) == "gpt"):
        layout += "_html"
    system = record.get("system") or record.get("system_message")
    if system is not None and not isinstance(system, str):
        raise UnknownLayoutError('expected a string under "system"')
    if system and system.strip():
        messages.insert(0, ("system", system))
    model = usable_text(record, "model")
    return RawRecord(layout, record_id(record), messages, model, has_plugins=record.get("plugins") is not None)


def read_message(message: object, number: int) -> tuple[str, str]:
    """The role and the text of a message under `from`/`value` or `role`/`content`."""
    if isinstance(message, dict):
        role = message.get("from", message.get("role"))
        text = message.get("value", message.get("content"))
        if isinstance(role, str) and isinstance(text, str):
            return role, text
    raise UnknownLayoutError(f'message {number}: expected strings under "from" and "value"')


def record_id(record: dict[str, Any]) -> str | None:
    """The record's id as a string (numbers are written out), None without a usable one."""
    identifier = record.get("id")
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        return str(identifier)
    return usable_text(record, "id")


def usable_text(record: dict[str, Any], key: str) -> str | None:
    """The Unicode text under `key`, None when there is none but blanks."""
    value = record.get(key)
    return value if isinstance(value, str) and value.strip() and find_lone_surrogate(value) is None else None


def model_family(name: str) -> str | None:
    """`gpt-4`, `gpt-3.5`, or None for a name that `MODEL_FAMILIES` lacks: nothing is guessed."""
    return FAMILY_OF_NAME.get(" ".join(name.lower().split()).removeprefix("model:").strip())
