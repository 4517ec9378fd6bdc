"""What a mixture plan holds: realised shares, passes over each source, packing figures."""

from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_agent.dataset.draws import DrawSource
from megatron_agent.dataset.plan import Plan

IntArray = npt.NDArray[np.int64]


def summarize(
    plan: Plan,
    sources: list[DrawSource],
    lengths: list[IntArray],
    trained_lengths: list[IntArray],
    validation_documents: dict[str, IntArray],
    eta: float,
    seq_length: int,
) -> dict[str, Any]:
    """Count a plan; all values are plain numbers, ready for JSON.

    `passes` is conversations in the plan divided by conversations that may be drawn. `expected_share` is the
    probability of the source at each draw; `conversation_share`, `token_share` and `trained_token_share` are
    realised. `fill` is the share of row positions that hold a conversation.
    """
    counts = np.bincount(plan.sources, minlength=len(sources))
    tokens = np.zeros(len(sources), dtype=np.int64)
    trained = np.zeros(len(sources), dtype=np.int64)
    for number in range(len(sources)):
        documents = plan.documents[plan.sources == number]
        tokens[number] = lengths[number][documents].sum()
        trained[number] = trained_lengths[number][documents].sum()
    group_weight = {
        group: sum(source.weight for source in sources if source.group == group) for group in ("agent", "general")
    }
    by_source = {}
    for number, source in enumerate(sources):
        probability = eta if source.group == "agent" else 1 - eta
        by_source[source.name] = {
            "group": source.group,
            "expected_share": probability * source.weight / group_weight[source.group],
            "conversations": int(counts[number]),
            "tokens": int(tokens[number]),
            "trained_tokens": int(trained[number]),
            "conversation_share": float(counts[number] / counts.sum()),
            "token_share": float(tokens[number] / tokens.sum()),
            "trained_token_share": float(trained[number] / trained.sum()),
            "passes": float(counts[number] / len(source.documents)),
            "training_conversations": len(source.documents),
            "validation_conversations": len(validation_documents[source.name]),
        }
    per_row = np.diff(plan.offsets)
    return {
        "eta": eta,
        "rows": len(plan),
        "seq_length": seq_length,
        "conversations": int(counts.sum()),
        "tokens": int(tokens.sum()),
        "trained_tokens": int(trained.sum()),
        "fill": float(tokens.sum() / (len(plan) * seq_length)),
        "conversations_per_row": float(per_row.mean()),
        "most_conversations_in_a_row": int(per_row.max()),
        "sources": by_source,
    }
