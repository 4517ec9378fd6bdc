"""How fast `build_indexed_dataset` is beside bare SentencePiece, FastChat and Megatron-LM, on the same conversations.

    pip install --no-deps fschat==0.2.36 shortuuid tiktoken markdown2 nh3      # for FastChat's side
    python -m tests.benchmarks.tokenize_speed --input sharegpt.jsonl --tokenizer T --json

`T` is a folder or file with a 32,000-piece `tokenizer.model`. One run, one side after the other, `--rounds` times (best
counts):

* ours: the whole command as a user starts it: start-up, reading, checking, encoding, masks, writing, hashing.
* sentencepiece: `SentencePieceProcessor.encode(texts, num_threads=cores)` of the very texts that ours encodes; nothing
  read, no mask, nothing written.
* fastchat: `fastchat.train.train.preprocess` (its masks need every turn encoded again), on loaded records, in batches
  of 512, with a fast tokenizer (its own script takes transformers 4's slow one); nothing read or written.
* megatron: the way of Megatron-LM's tools/preprocess_data.py: a process pool encodes one document at a time from its
  line of JSON (`imap`, chunks of 32; here with the tokenizer that Megatron-LM wraps, SentencePiece), ids come back as
  lists, Megatron-core's builder writes them. No masks.

Speeds are in the tokens of ours: same conversations for all. Ratios above 1 mean that ours is faster.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from megatron_agent.chat.conversation import Conversation, conversation_to_record, read_conversations, split_turns
from megatron_agent.chat.template import TEMPLATES, exchange_pieces
from megatron_agent.chat.tokenizer import load_tokenizer
from megatron_agent.dataset.manifest import read_manifest
from megatron_agent.processes import available_cores
from tests.chat.tiny_tokenizers import convert_to_json

TEMPLATE = TEMPLATES["llama-2"]
BOUNDS = {"sentencepiece": 0.9, "fastchat": 3.0, "megatron": 3.0}
"""Least ratio wanted."""


def template_texts(conversation: Conversation) -> list[str]:
    """The texts that a conversation is encoded as."""
    exchanges = split_turns(conversation)[1]
    pieces = [
        piece
        for number, (human, gpt) in enumerate(exchanges)
        for piece, _ in exchange_pieces(TEMPLATE, human, gpt, "" if number else TEMPLATE.system_prompt)
    ]
    return [piece for piece in pieces if isinstance(piece, str)]


def run_ours(source: Path, tokenizer: Path, folder: Path, workers: int) -> int:
    """The command; returns its tokens."""
    prefix = folder / "ours"
    arguments = ["--input", str(source), "--tokenizer", str(tokenizer), "--template", "llama-2", "--overwrite"]
    arguments += ["--workers", str(workers), "--seq-length", "100000000", "--output-prefix", str(prefix)]
    command = [sys.executable, "-m", "data_prep.build_indexed_dataset", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return read_manifest(prefix).num_tokens


def run_sentencepiece(model: Path, texts: list[str], workers: int) -> int:
    """Bare batch encoding, 20,000 texts at a time so that memory stays small."""
    processor = SentencePieceProcessor(model_file=str(model))
    return sum(
        sum(map(len, processor.encode(texts[start : start + 20_000], num_threads=workers)))
        for start in range(0, len(texts), 20_000)
    )


def run_fastchat(tokenizer: Any, records: list[list[dict[str, str]]]) -> None:
    """FastChat's preprocessing of the same conversations."""
    from fastchat.train.train import preprocess

    for start in range(0, len(records), 512):
        preprocess(records[start : start + 512], tokenizer)


def fastchat_tokenizer(model: Path, folder: Path) -> Any:
    """The same vocabulary as transformers takes it, with the settings of FastChat's training script."""
    from transformers import PreTrainedTokenizerFast

    convert_to_json(model, folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.padding_side, tokenizer.model_max_length, tokenizer.legacy = "right", 4096, True
    return tokenizer


_processor: list[SentencePieceProcessor] = []


def start_megatron_worker(model: str) -> None:
    """Megatron-LM's `Encoder.initializer`."""
    _processor.append(SentencePieceProcessor(model_file=model))


def encode_megatron_line(line: str) -> tuple[list[int], int]:
    """Megatron-LM's `Encoder.encode`: one document, one call."""
    record = json.loads(line)
    text = "\n".join(turn["value"] for turn in record["conversations"])
    ids: list[int] = _processor[0].encode_as_ids(text)
    return ids, len(line)


def run_megatron(source: Path, model: Path, folder: Path, workers: int, vocab_size: int) -> None:
    """Megatron-LM's way, into Megatron-core's own builder."""
    import numpy as np
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(folder / "megatron.bin"), dtype=DType.optimal_dtype(vocab_size))
    with multiprocessing.Pool(workers, start_megatron_worker, (str(model),)) as pool, source.open() as lines:
        for ids, _ in pool.imap(encode_megatron_line, lines, 32):
            builder.add_document(np.array(ids), [len(ids)])
    builder.finalize(str(folder / "megatron.idx"))


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, type=Path, help="conversation JSONL, e.g. cleaned ShareGPT")
    parser.add_argument("--tokenizer", required=True, type=Path, help="tokenizer.model, or its folder")
    parser.add_argument("--conversations", type=int, help="use the first N only")
    parser.add_argument("--workers", type=int, default=available_cores(), help="processes and threads for all sides")
    parser.add_argument("--rounds", type=int, default=2, help="each side is timed as often; the best counts")
    parser.add_argument("--skip", nargs="*", default=[], choices=BOUNDS, help="sides to leave out")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args()
    model = arguments.tokenizer / "tokenizer.model" if arguments.tokenizer.is_dir() else arguments.tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "true"

    conversations = list(read_conversations(arguments.input))[: arguments.conversations]
    texts = [text for conversation in conversations for text in template_texts(conversation)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = folder / "input.jsonl"
        raw = [conversation_to_record(conversation) for conversation in conversations]
        source.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in raw), encoding="utf-8")
        records = [record["conversations"] for record in raw]
        vocab_size = load_tokenizer(model).vocab_size
        sides: dict[str, Callable[[], object]] = {
            "ours": lambda: run_ours(source, model, folder, arguments.workers),
            "sentencepiece": lambda: run_sentencepiece(model, texts, arguments.workers),
            "megatron": lambda: run_megatron(source, model, folder, arguments.workers, vocab_size),
        }
        if "fastchat" not in arguments.skip:
            tokenizer = fastchat_tokenizer(model, folder)
            run_fastchat(tokenizer, records[:2])  # imports
            sides["fastchat"] = lambda: run_fastchat(tokenizer, records)
        for name in arguments.skip:
            sides.pop(name, None)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, side in sides.items():
                started = time.perf_counter()
                side()
                seconds[name].append(time.perf_counter() - started)
        tokens = read_manifest(folder / "ours").num_tokens
    best = {name: min(times) for name, times in seconds.items()}
    ratios = {name: best[name] / best["ours"] for name in best if name != "ours"}
    result = {
        "conversations": len(conversations),
        "tokens": tokens,
        "workers": arguments.workers,
        "seconds": {name: [round(value, 2) for value in times] for name, times in seconds.items()},
        "million_tokens_per_second": {name: round(tokens / value / 1e6, 2) for name, value in best.items()},
        "ours_is_faster_by": {name: round(value, 2) for name, value in ratios.items()},
        "wanted": BOUNDS,
        "met": {name: value >= BOUNDS[name] for name, value in ratios.items()},
        "load_average": [round(value, 1) for value in os.getloadavg()],
    }
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        for name, speed in sorted(result["million_tokens_per_second"].items(), key=lambda item: -item[1]):
            ratio = f"   ours is {ratios[name]:.2f} x as fast (wanted {BOUNDS[name]:g})" if name in ratios else ""
            print(f"{name:<14}{speed:>6.2f} M tokens/s{ratio}")


if __name__ == "__main__":
    main()
