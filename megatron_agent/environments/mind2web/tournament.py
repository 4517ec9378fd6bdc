"""The tournament: candidates are asked for five at a time, and the chosen one goes back into the pool."""

from collections.abc import Sequence

BATCH = 5


class Tournament:
    """AgentBench's `predict_single`: batches of five from the front, winners to the end, until one or none is left.

    A reply "none of the above" drops the whole batch. The last winner is the prediction, unless the pool ends empty
    (the last batch, winners of earlier ones among it, was rejected).
    """

    def __init__(self, candidates: Sequence[str]) -> None:
        self._pool = list(candidates)
        self._last: tuple[str, str] | None = None

    def next_batch(self) -> list[str]:
        """Take the next batch from the pool; empty when the tournament is over."""
        if len(self._pool) <= 1:
            return []
        batch, self._pool = self._pool[:BATCH], self._pool[BATCH:]
        return batch

    def choose(self, node_id: str, action: str) -> None:
        """Put the chosen one of the batch back, with the action named for it."""
        self._pool.append(node_id)
        self._last = (node_id, action)

    @property
    def prediction(self) -> tuple[str, str] | None:
        """The winner and its action; None as long as, or because, there is none."""
        return self._last if self._pool else None
