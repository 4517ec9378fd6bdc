"""The whole audit: every rule over every row, and its report."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from data_prep.agentinstruct.audit_actions import has_known_form, impossible_actions
from data_prep.agentinstruct.audit_findings import RULES, Finding
from data_prep.agentinstruct.audit_mis_joined import FEWEST_ROWS, find_mis_joined
from data_prep.agentinstruct.audit_text import duplicates, replies_off_grammar, terminal_codes, truncated
from data_prep.agentinstruct.audit_triggers import backdoors
from data_prep.agentinstruct.card import by_task
from data_prep.agentinstruct.replies import GRAMMARS
from megatron_agent.chat.conversation import Conversation

SHOWN = 3
"""Findings of a rule that the terminal shows."""

NOTE = 300
"""Characters of a note that the terminal shows."""


@dataclass
class Audit:
    """What an audit found."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be judged, and why."""

    def flagged(self, rule: str) -> list[str]:
        """Return the ids of the rows that a rule flagged, each once."""
        return list(dict.fromkeys(finding.id for finding in self.findings if finding.rule == rule))


def audit(conversations: Sequence[Conversation]) -> Audit:
    """Apply every rule to the rows of a data set; each has at least one trained turn."""
    result = Audit()
    groups = by_task(conversations)
    if rows := groups.get("mind2web"):
        joins = find_mis_joined(rows)
        result.findings += joins.findings
        if not joins.judged:
            result.notes.append(f"mis_joined: needs {FEWEST_ROWS} mind2web rows to compare, got {len(rows)}")
        elif joins.undecided:
            result.notes.append(
                f"mis_joined: {len(joins.undecided)} of {joins.judged} replies say too little to be judged: "
                + ", ".join(joins.undecided)
            )
        if joins.judged and joins.judged < len(rows):
            result.notes.append(f"mis_joined: {len(rows) - joins.judged} rows are not in the released form")
    for task in ("webshop", "kg"):
        if strange := [row.id for row in groups.get(task, []) if not has_known_form(row)]:
            result.notes.append(f"impossible_action: {len(strange)} rows of {task} are not in the released form")
    unknown = sorted(task for task in groups if task not in GRAMMARS)
    if unknown:
        result.notes.append(f"no reply grammar for {', '.join(unknown)}: only the rules for any text were applied")
    for conversation in conversations:
        for rule in (impossible_actions, terminal_codes, replies_off_grammar, truncated):
            result.findings += rule(conversation)
    result.findings += duplicates(conversations)
    result.findings += backdoors(conversations)
    return result


def audit_report(result: Audit) -> dict[str, Any]:
    """Return the audit for the JSON report: counts by rule, notes, and every finding."""
    findings = Counter(finding.rule for finding in result.findings)
    return {
        "rules": {
            rule: {"looks_for": text, "findings": findings[rule], "rows": len(result.flagged(rule))}
            for rule, text in RULES.items()
        },
        "notes": result.notes,
        "findings": [asdict(finding) for finding in result.findings],
    }


def format_audit(result: Audit) -> str:
    """Return the audit for the terminal: a line a rule that found something, and its first findings."""
    lines = [f"{'audit rule':<24}{'rows':>7}{'findings':>10}   first rows"]
    for rule in RULES:
        ids = result.flagged(rule)
        if ids:
            count = sum(finding.rule == rule for finding in result.findings)
            more = ", ..." if len(ids) > SHOWN else ""
            lines.append(f"{rule:<24}{len(ids):>7,}{count:>10,}   {', '.join(ids[:SHOWN])}{more}")
    if len(lines) == 1:
        lines.append("nothing found")
    for note in result.notes:
        lines.append(f"note: {note}" if len(note) <= NOTE else f"note: {note[:NOTE]}... (--report has the rest)")
    return "\n".join(lines)
