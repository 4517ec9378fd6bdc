"""What a mixture plan holds: realised shares, passes over each source, repeats, packing figures."""

from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_agent.dataset.draws import DrawSource, draw_probabilities
from megatron_agent.dataset.plan import Plan

IntArray = npt.NDArray[np.int64]


def summarize(
    plan: Plan,
    sources: list[DrawSource],
    draw_eta: float,
    lengths: list[IntArray],
    trained_lengths: list[IntArray],
    seq_length: int,
) -> dict[str, Any]:
    """Count a plan made from `sources` and `draw_eta`; all values are plain numbers, ready for JSON.

    By source:

    * `expected_conversation_share`: its probability at each draw; `expected_token_share`: what follows for tokens
      from the mean lengths of its training conversations;
    * `conversation_share`, `token_share`, `trained_token_share`: realised;
    * `paper_passes`: rows times that probability divided by all its conversations, the arithmetic of
      THUDM/AgentTuning issue 52 (one conversation a row, none held out); `passes`: conversations in the plan divided
      by its training conversations;
    * `most_repeats`: how often its most repeated conversation is in the plan;
    * `longest_run`: the most conversations of it in unbroken succession, in the order of training (row after row, and
      inside a row from left to right); `longest_run_rows`: the most rows in succession that hold nothing else.

    `fill` is the share of row positions that hold a conversation; `rows_by_conversations[n]` is the number of rows
    that hold n conversations.
    """
    by_source = {}
    runs = _longest_runs(plan.sources, len(sources))
    firsts = plan.offsets[:-1]
    only = np.minimum.reduceat(plan.sources, firsts)
    only[only != np.maximum.reduceat(plan.sources, firsts)] = len(sources)  # rows of several sources
    row_runs = _longest_runs(only, len(sources) + 1)
    times = [np.bincount(plan.documents[plan.sources == i], minlength=len(lengths[i])) for i in range(len(sources))]
    counts = np.array([int(t.sum()) for t in times])
    tokens = np.array([int(t @ table) for t, table in zip(times, lengths, strict=True)])
    trained = np.array([int(t @ table) for t, table in zip(times, trained_lengths, strict=True)])
    probabilities = np.array(draw_probabilities(sources, draw_eta))
    mean_lengths = [table[s.documents].mean() for s, table in zip(sources, lengths, strict=True)]
    expected_tokens = probabilities * mean_lengths
    for i, source in enumerate(sources):
        by_source[source.name] = {
            "group": source.group,
            "expected_conversation_share": float(probabilities[i]),
            "expected_token_share": float(expected_tokens[i] / expected_tokens.sum()),
            "conversations": int(counts[i]),
            "tokens": int(tokens[i]),
            "trained_tokens": int(trained[i]),
            "conversation_share": float(counts[i] / counts.sum()),
            "token_share": float(tokens[i] / tokens.sum()),
            "trained_token_share": float(trained[i] / trained.sum()),
            "paper_passes": float(len(plan) * probabilities[i] / len(lengths[i])),
            "passes": float(counts[i] / len(source.documents)),
            "most_repeats": int(times[i].max()),
            "longest_run": runs[i],
            "longest_run_rows": row_runs[i],
            "training_conversations": len(source.documents),
            "validation_conversations": len(lengths[i]) - len(source.documents),
        }
    per_row = np.diff(plan.offsets)
    return {
        "rows": len(plan),
        "seq_length": seq_length,
        "conversations": int(counts.sum()),
        "tokens": int(tokens.sum()),
        "trained_tokens": int(trained.sum()),
        "fill": float(tokens.sum() / (len(plan) * seq_length)),
        "conversations_per_row": float(per_row.mean()),
        "most_conversations_in_a_row": int(per_row.max()),
        "rows_by_conversations": np.bincount(per_row).tolist(),
        "sources": by_source,
    }


def group_share(summary: dict[str, Any], kind: str, group: str = "agent") -> float:
    """Return the share of a group in a summary: `kind` is one of the shares by source."""
    return float(sum(source[kind] for source in summary["sources"].values() if source["group"] == group))


def _longest_runs(values: IntArray, kinds: int) -> list[int]:
    """Return, for each value 0 to `kinds - 1`, the length of its longest unbroken run in `values` (0 if absent)."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1])
    sizes = np.diff(np.concatenate([starts, [len(values)]]))
    longest = np.zeros(kinds, dtype=np.int64)
    np.maximum.at(longest, values[starts], sizes)
    return longest.tolist()
