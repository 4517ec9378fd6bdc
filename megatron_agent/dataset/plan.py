"""The mixture plan: which conversations each packed row holds. Made from lengths alone, cached by hash."""

import dataclasses
import hashlib
import json
import logging
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_agent.dataset.config import DataConfig
from megatron_agent.dataset.draws import DrawSource, draw_conversations
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.dataset.packing import PACKING_VERSION, pack_stream
from megatron_agent.files import atomic_write

PLAN_VERSION = 1

IntArray = npt.NDArray[np.int64]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Rows `0..n-1`: row `i` holds conversations `offsets[i]` to `offsets[i + 1]` of `sources` and `documents`."""

    offsets: IntArray
    sources: IntArray
    documents: IntArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, i: int) -> tuple[IntArray, IntArray]:
        """Return `(sources, documents)` of row `i`, both `[conversations of the row]`."""
        inside = slice(self.offsets[i], self.offsets[i + 1])
        return self.sources[inside], self.documents[inside]


def make_plan(
    sources: list[DrawSource], lengths: list[IntArray], eta: float, seq_length: int, seed: int, num_rows: int
) -> Plan:
    """Draw conversations and pack them into `num_rows` rows of `seq_length` tokens.

    `lengths[s][d]` is the number of tokens of conversation `d` of source `s`. A pure function of its arguments, and
    prefix-stable: the first rows of a longer plan are the rows of a shorter one.
    """
    drawn: list[tuple[IntArray, IntArray]] = []

    def stream_lengths() -> Iterator[IntArray]:
        for source, document in draw_conversations(sources, eta, seed):
            drawn.append((source, document))
            chunk = np.empty(len(source), dtype=np.int64)
            for number, table in enumerate(lengths):
                chosen = source == number
                chunk[chosen] = table[document[chosen]]
            yield chunk

    rows: list[IntArray] = []
    blocks = pack_stream(stream_lengths(), seq_length, seed)
    while len(rows) < num_rows:
        rows.extend(next(blocks))
    rows = rows[:num_rows]
    stream_sources = np.concatenate([source for source, _ in drawn])
    stream_documents = np.concatenate([document for _, document in drawn])
    placed = np.concatenate(rows)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return Plan(offsets, stream_sources[placed], stream_documents[placed])


def plan_key(config: DataConfig, datasets: list[ConversationDataset], num_rows: int) -> str:
    """Hash everything a plan depends on: data files, names, weights, eta, row length, seed, rows, algorithm."""
    record = {
        "versions": [PLAN_VERSION, PACKING_VERSION],
        "sources": [
            [group, source.name, source.weight] for group in ("agent", "general") for source in getattr(config, group)
        ],
        "files": [[dataset.manifest.bin_sha256, dataset.manifest.idx_sha256] for dataset in datasets],
        "eta": [config.eta, config.eta_per],
        "seq_length": config.seq_length,
        "seed": config.seed,
        "validation_fraction": config.validation_fraction,
        "num_rows": num_rows,
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def save_plan(path: Path, plan: Plan, key: str) -> None:
    """Write a plan whole or not at all, with a hash of its content."""
    arrays = dataclasses.asdict(plan)
    with atomic_write(path, "wb") as handle:
        np.savez(handle, digest=np.array(_digest(plan, key)), **arrays)


def load_plan(path: Path, key: str) -> Plan | None:
    """Read a plan made for `key`; None when there is none, or (with a warning) when the file is damaged."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            plan = Plan(archive["offsets"], archive["sources"], archive["documents"])
            if str(archive["digest"]) == _digest(plan, key):
                return plan
            problem = "its content does not match its own hash"
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        problem = str(error)
    logger.warning("%s: cached mixture plan is damaged (%s); planning again", path, problem)
    return None


def cached_plan(
    config: DataConfig, sources: list[DrawSource], datasets: list[ConversationDataset], eta: float, num_rows: int
) -> Plan:
    """Return the plan of `num_rows` rows for a checked configuration, from `config.cache_dir` when it is there.

    `sources` and `eta` are those of the draws: the configuration's own, or what gives its token shares.
    """
    key = plan_key(config, datasets, num_rows)
    path = Path(config.cache_dir) / f"mixture_{key[:32]}.npz" if config.cache_dir else None
    plan = load_plan(path, key) if path else None
    if plan is None:
        lengths = [dataset.lengths for dataset in datasets]
        plan = make_plan(sources, lengths, eta, config.seq_length, config.seed, num_rows)
        if path:
            save_plan(path, plan, key)
    return plan


def _digest(plan: Plan, key: str) -> str:
    digest = hashlib.sha256(key.encode())
    for array in (plan.offsets, plan.sources, plan.documents):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
