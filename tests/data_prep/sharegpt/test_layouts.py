"""Layouts as their publishers write them, and model names against the table."""

from typing import Any

import pytest

from data_prep.sharegpt.layouts import UnknownLayoutError, model_family, read_raw_record

PAGE = '<div class="markdown prose w-full break-words dark:prose-invert light"><p>Yes.</p></div>'


def message(role: str, text: str) -> dict[str, str]:
    return {"from": role, "value": text}


@pytest.mark.parametrize(
    ("record", "layout", "messages"),
    [
        (
            {"id": "QWJhYvA_0", "conversations": [message("human", "q"), message("gpt", "a")]},
            "sharegpt",
            [("human", "q"), ("gpt", "a")],
        ),
        (
            {"id": "i6IyJda", "conversations": [message("human", "<b>?"), message("gpt", PAGE)]},
            "sharegpt_html",
            [("human", "<b>?"), ("gpt", PAGE)],
        ),
        (  # OpenChat's sharegpt_clean.json: the page's content with id, views and hash
            {
                "avatarUrl": "data:",
                "items": [message("human", "q"), message("gpt", "a")],
                "model": "Model: GPT-4",
                "id": "x",
                "views": 3,
                "hash": [1, 2],
            },
            "openchat",
            [("human", "q"), ("gpt", "a")],
        ),
        ({"id": "x", "items": [message("gpt", PAGE)], "model": ""}, "openchat_html", [("gpt", PAGE)]),
        (  # OpenChat 3.5
            {
                "items": [{"role": "user", "content": "q", "weight": 0.0}, {"role": "assistant", "content": "a"}],
                "system": "s",
            },
            "openchat",
            [("system", "s"), ("user", "q"), ("assistant", "a")],
        ),
        ({"id": 7, "conversations": [], "model": "gpt4", "plugins": None}, "sharegpt", []),
        ({"id": 7, "conversations": [], "system": "\ud800"}, "sharegpt", [("system", "\ud800")]),  # a rule's to drop
        ({"id": 7, "conversations": [], "system": " "}, "sharegpt", []),
    ],
)
def test_layouts(record: dict[str, Any], layout: str, messages: list[tuple[str, str]]) -> None:
    raw = read_raw_record(record)
    assert (raw.layout, raw.messages) == (layout, messages)
    assert raw.identifier == (str(record["id"]) if "id" in record else None)
    assert raw.model == (record.get("model") or None)
    assert raw.has_plugins is False


def test_plugins() -> None:
    assert read_raw_record({"id": "a", "conversations": [], "plugins": ["browser"]}).has_plugins


@pytest.mark.parametrize(
    "record",
    [
        "text",
        {"id": "a"},
        {"items": [], "system": ["s"]},
        {"conversations": "text"},
        {"items": [["human", "hi"]]},
        {"items": [message("human", None)]},
    ],  # type: ignore[arg-type]
)
def test_unknown_layouts(record: object) -> None:
    with pytest.raises(UnknownLayoutError):
        read_raw_record(record)


@pytest.mark.parametrize("identifier", ["", " ", None, True, 1.5, ["a"], "a\ud800"])
def test_unusable_ids(identifier: object) -> None:
    assert read_raw_record({"id": identifier, "conversations": []}).identifier is None


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Model: GPT-4", "gpt-4"),
        ("gpt4", "gpt-4"),
        ("gpt-4-0314", "gpt-4"),
        ("Default (GPT-3.5)", "gpt-3.5"),
        ("Model:  Legacy (GPT-3.5)", "gpt-3.5"),
        ("Model: Default", "gpt-3.5"),
        ("text-davinci-002-render-sha", "gpt-3.5"),
        ("gpt-3.5-turbo-0613", "gpt-3.5"),
        ("claude-2", None),
        ("gpt-5", None),
        ("not gpt-4", None),
        ("gpt", None),
    ],
)
def test_model_names(name: str, family: str | None) -> None:
    assert model_family(name) == family
