"""Which conversation comes next: the draws of the mixture, and the held-out split.

All randomness comes from raw Philox bits keyed by a hash of what they are for. NumPy guarantees these bits across
versions and machines; it does not guarantee the methods of its `Generator`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from megatron_agent.errors import UserError

CHUNK = 8192  # draws made at once

IntArray = npt.NDArray[np.int64]


def random_bits(*key: object) -> np.random.Philox:
    """Return the source of random 64-bit words that belongs to `key`."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in key).encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))


def permutation(n: int, *key: object) -> IntArray:
    """Return the random order of `0..n-1` that belongs to `key`."""
    return np.argsort(random_bits(*key).random_raw(n), kind="stable")


@dataclass(frozen=True)
class DrawSource:
    """A source as the draws see it."""

    name: str
    group: str
    """`agent` or `general`."""
    weight: float
    """Share of this source among the draws of its group, up to a factor common to the group."""
    documents: IntArray
    """Numbers of the conversations that may be drawn, ascending."""


def split_documents(count: int, fraction: float, seed: int, name: str) -> tuple[IntArray, IntArray]:
    """Split the conversations `0..count-1` of a source into `(training, validation)`, both ascending.

    Depends on the seed and the source's name alone, so the split is the same for every eta and weight. Holds out
    `fraction` of them, at least one when `fraction` is above 0. Raises :class:`UserError` when none would be left.
    """
    held_out = max(1, round(count * fraction)) if fraction > 0 else 0
    if held_out >= count:
        raise UserError(
            f"data.validation_fraction {fraction} holds out {held_out} of the {count} conversations of source "
            f"{name!r} and leaves none to train on; set it to 0 or give the source more conversations"
        )
    order = permutation(count, seed, "validation", name)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def draws_for_token_shares(
    sources: list[DrawSource], lengths: list[IntArray], eta: float
) -> tuple[list[DrawSource], float]:
    """Turn `eta` and weights meant as shares of tokens into the ones of draws that give these shares.

    A draw from a source brings the mean length of its conversations in `documents` (`lengths[s][d]` tokens), exactly
    so over each pass. So a source is drawn in proportion to its token share divided by that mean; the general sources
    keep their ratios for every eta, and eta 0 and 1 stay 0 and 1.
    """
    weighted = [
        replace(source, weight=source.weight / float(table[source.documents].mean()))
        for source, table in zip(sources, lengths, strict=True)
    ]
    # draws per token of each group: the sum of (share of the group's tokens / mean length) over its sources
    agent, general = (
        sum(w.weight for w in weighted if w.group == group)
        / (sum(s.weight for s in sources if s.group == group) or 1.0)
        for group in ("agent", "general")
    )
    return weighted, eta * agent / (eta * agent + (1 - eta) * general)


def draw_probabilities(sources: list[DrawSource], eta: float) -> list[float]:
    """Return the probability of each source at a draw, when agent sources are drawn with probability `eta`."""
    total = {group: sum(s.weight for s in sources if s.group == group) for group in ("agent", "general")}
    return [(eta if s.group == "agent" else 1 - eta) * s.weight / total[s.group] for s in sources]


def draw_conversations(sources: list[DrawSource], eta: float, seed: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield the endless stream of draws in chunks: `(source, document)`, both `[CHUNK]`.

    Each draw takes the agent group with probability `eta`, then a source of the group by its share of the group's
    weights, then that source's next conversation. A source is walked in passes: pass k is a random order of all its
    conversations that depends on (seed, name, k) alone. AgentTuning's eq. (1), with eta as the authors state it: a
    sampling probability over conversations (THUDM/AgentTuning issues 10 and 52).
    """
    bits = random_bits(seed, "draws")
    members = {g: [i for i, s in enumerate(sources) if s.group == g] for g in ("agent", "general")}
    borders = {}
    for group, numbers in members.items():
        weights = np.array([sources[number].weight for number in numbers], dtype=np.float64)
        borders[group] = np.cumsum(weights / weights.sum())[:-1] if numbers else weights
    drawn = [0] * len(sources)
    current: dict[int, tuple[int, IntArray]] = {}  # source -> (pass, its order)
    while True:
        # 53 random bits make a double in [0, 1), two for each draw
        uniform = (bits.random_raw(2 * CHUNK) >> np.uint64(11)).reshape(CHUNK, 2) * 2.0**-53
        is_agent = uniform[:, 0] < eta
        source = np.empty(CHUNK, dtype=np.int64)
        for group, chosen in (("agent", is_agent), ("general", ~is_agent)):
            if chosen.any():
                position = np.searchsorted(borders[group], uniform[chosen, 1], side="right")
                source[chosen] = np.array(members[group])[position]
        document = np.empty(CHUNK, dtype=np.int64)
        for number in np.unique(source).tolist():
            pool = sources[number].documents
            where = np.flatnonzero(source == number)
            walk = drawn[number] + np.arange(len(where))
            drawn[number] += len(where)
            first, last = int(walk[0]) // len(pool), int(walk[-1]) // len(pool)
            for k in range(first, last + 1):
                if current.get(number, (-1,))[0] != k:
                    current[number] = k, permutation(len(pool), seed, "pass", k, sources[number].name)
                inside = walk // len(pool) == k if first != last else slice(None)
                document[where[inside]] = pool[current[number][1][walk[inside] % len(pool)]]
        yield source, document
