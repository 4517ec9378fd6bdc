"""Raw ShareGPT records, and a cleaning whose report is checked against its outputs."""

import json
from pathlib import Path
from typing import Any

from data_prep.clean_sharegpt import clean_sharegpt
from data_prep.sharegpt.cleaning_rules import RULES, select_rules
from megatron_agent.chat.conversation import check_trainable, read_conversations

CODE = {"h": "human", "g": "gpt", "s": "system", "u": "user", "c": "chatgpt", "b": "bing", "x": "narrator"}
WITHOUT_NEAR = select_rules(skipped=["near_duplicate"])
PAGE = '<div class="markdown prose w-full"><p>Use <code>a_b</code>.</p></div>'


def raw(identifier: object, roles: str, *texts: str, **fields: Any) -> dict[str, Any]:
    """A raw record; `roles` has a letter a message, texts default to `<id> message <n>`."""
    values = texts or [f"{identifier} message {i}" for i in range(len(roles))]
    messages = [{"from": CODE[role], "value": value} for role, value in zip(roles, values, strict=True)]
    return {"id": identifier, "conversations": messages, **fields}


def run(folder: Path, records: list[Any], **options: Any) -> tuple[list[Any], dict[str, Any]]:
    """Clean `records`; return the conversations and the report file."""
    source = folder / "in.json"
    source.write_text(json.dumps(records))
    options.setdefault("rules", WITHOUT_NEAR)
    clean_sharegpt([source], folder / "out.jsonl", folder / "report.json", **options)
    report = json.loads((folder / "report.json").read_text())
    assert report["read"] == len(records) == report["kept"] + sum(report["dropped"].values())
    for rule, count in report["dropped"].items():
        assert len(report["dropped_ids"][rule]) == count
        assert len(report["examples"][rule]) == min(5, count)
        assert rule in RULES
    for rule, count in report["repaired"].items():
        assert len(report["examples"][rule]) == min(5, count)
        assert rule in RULES
    conversations = list(read_conversations(folder / "out.jsonl"))
    for conversation in conversations:
        check_trainable(conversation, conversation.id)
    assert report["written"] == len(conversations)
    assert report["turns_kept"] == sum(len(c.turns) for c in conversations)
    return conversations, report


GOOD = raw("good", "hg")
