"""What a contamination check compares: the test items, the training texts, and the numbers of their tokens."""

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_prep.contamination.index import NO_TOKEN, Tokens
from megatron_agent.chat.conversation import (
    decode_json,
    decompressed_lines,
    parse_conversation,
    read_located_conversations,
    read_records,
    refuse_lone_surrogates,
    require_file,
)
from megatron_agent.chat.tokenizer import load_tokenizer
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.errors import UserError
from megatron_agent.files import open_decompressed

TEXT_FIELDS = ("question", "description", "prompt", "instruction", "intent", "turns", "text")
"""Where the benchmarks keep an item's text: the first one present is read when no field is named."""
ID_FIELDS = ("id", "task_id", "question_id", "qid")
TRAIN_PARTS = ("all", "trained")
NUMBERED_ID = re.compile(r"(.+)[_/]\d+")  # db_12, HumanEval/0
WORDS = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class TestItem:
    """One test example; no match spans two of its `texts` (the turns of a conversation)."""

    __test__ = False  # pytest takes any class named Test... for tests

    id: str
    task: str
    where: str
    texts: tuple[str, ...]


Text = str | Sequence[int]
"""A text, or the token ids of one in an indexed dataset."""


@dataclass(frozen=True)
class TrainingText:
    """One turn of a training conversation. `record` counts the conversations of all inputs from 0, `turn` from 1."""

    where: str
    record: int
    turn: int
    text: Text


@dataclass(frozen=True)
class TrainingInputs:
    """Where the training conversations are: JSONL files and indexed datasets; and which `part` of them is meant."""

    files: Sequence[Path]
    datasets: Sequence[ConversationDataset]
    part: str


def read_test_items(test: Sequence[str], text_fields: Sequence[str] = ()) -> list[TestItem]:
    """Read the test items of JSONL files and JSON arrays (gzip too), each given as a path or as `TASK=PATH`.

    An item is a conversation, an object with a text (`text_fields`, else the first of `TEXT_FIELDS` it has; a
    string, or a list of strings), or a bare string. Its task is TASK, else its `task`, else its id without the
    number, else the file's name. Raises `UserError` for files without items and items without text.
    """
    items: list[TestItem] = []
    for specification in test:
        task, path = split_specification(specification)
        before = len(items)
        for number, (where, record) in enumerate(read_values(path)):
            items.append(parse_item(record, where, number, task, path, text_fields))
        if len(items) == before:
            raise UserError(f"{path}: no test items; expected JSONL, one item a line, or a JSON array")
    return items


def split_specification(specification: str) -> tuple[str | None, Path]:
    """Split `TASK=PATH`; what names a file as it stands is a path."""
    task, equals, rest = specification.partition("=")
    if not equals or Path(specification).exists():
        return None, require_file(specification)
    if not task:
        raise UserError(f"--test {specification}: expected TASK=PATH or PATH, got no task before the =")
    return task, require_file(rest)


def read_values(path: Path) -> Iterator[tuple[str, object]]:
    """Yield `(where, value)` for each line of a JSONL file, or each element of a JSON array."""
    with open_decompressed(path) as handle:
        begin = next((line for line in decompressed_lines(handle, path) if not line.isspace()), b"")
    if not begin.lstrip().startswith(b"["):
        yield from read_records(path)
        return
    with open_decompressed(path) as handle:
        array = decode_json(b"".join(decompressed_lines(handle, path)), str(path))
    if not isinstance(array, list):
        raise UserError(f"{path}: expected one JSON array, or JSONL")
    for number, value in enumerate(array, start=1):
        yield f"{path}: item {number}", value


def parse_item(
    record: object, where: str, number: int, task: str | None, path: Path, text_fields: Sequence[str]
) -> TestItem:
    """Turn a decoded value into a :class:`TestItem`; `number` names an item that has no id."""
    identifier = str(number)
    texts: object = record
    if isinstance(record, dict):
        names = [str(record[key]) for key in ID_FIELDS if isinstance(record.get(key), str | int)]
        identifier = names[0] if names else identifier
        if "conversations" in record and not text_fields:
            conversation = parse_conversation(record, where)
            texts = [turn.value for turn in conversation.turns]
        else:
            present = [key for key in text_fields or TEXT_FIELDS if key in record]
            if not present or (text_fields and len(present) < len(text_fields)):
                expected = " and ".join(text_fields) or " or ".join(TEXT_FIELDS)
                raise UserError(
                    f"{where}: expected a text under {expected}, the item has {', '.join(record) or 'no keys'}; "
                    "name its field with --text-field"
                )
            values = [record[key] for key in (text_fields or present[:1])]
            texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
        if task is None and isinstance(record.get("task"), str):
            task = record["task"]
        elif task is None and (match := NUMBERED_ID.fullmatch(identifier)):
            task = match.group(1)
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: expected the item's text as a string or a list of strings; see --text-field")
    if not any(text.strip() for text in texts):
        raise UserError(f"{where}: the item's text is empty; name another --text-field or remove the item")
    task = task or path.name.removesuffix(".gz").rsplit(".", 1)[0]
    for text in (identifier, task, *texts):
        refuse_lone_surrogates(text, where)
    return TestItem(identifier, task, where, tuple(texts))


def open_training_inputs(
    files: Sequence[str | Path], prefixes: Sequence[str | Path], part: str, tokenizer_path: str | None
) -> TrainingInputs:
    """Check that the training inputs are there, and that indexed datasets hold ids of the tokenizer given."""
    if part not in TRAIN_PARTS:
        raise UserError(f"--train-part {part}: expected one of {', '.join(TRAIN_PARTS)}")
    if not files and not prefixes:
        raise UserError("no training data: give --train X.jsonl or --train-prefix P")
    datasets = [ConversationDataset(prefix) for prefix in prefixes]
    if datasets and tokenizer_path is None:
        raise UserError(f"--train-prefix {prefixes[0]}: give --tokenizer {datasets[0].manifest.tokenizer_name} as well")
    for dataset in datasets:
        tokenizer = load_tokenizer(str(tokenizer_path))
        if tokenizer.sha256 != dataset.manifest.tokenizer_sha256:
            raise UserError(
                f"{dataset.prefix}: built with a tokenizer of sha256 {dataset.manifest.tokenizer_sha256[:16]}..., "
                f"--tokenizer {tokenizer.name} has {tokenizer.sha256[:16]}...; give the one it was built with"
            )
    return TrainingInputs([require_file(file) for file in files], datasets, part)


def read_training_texts(inputs: TrainingInputs) -> Iterator[TrainingText]:
    """Yield the turns of the JSONL files, then the conversations of the indexed datasets.

    Of an indexed conversation the whole is one text, with the template's tokens, or each run of trained tokens is.
    Raises `UserError` for JSONL files without conversations, or without trained turns where these are asked for.
    """
    record, compared = -1, False
    for file in inputs.files:
        for where, conversation in read_located_conversations(file):
            record += 1
            for number, turn in enumerate(conversation.turns, start=1):
                if inputs.part == "all" or turn.trained:
                    compared = True
                    yield TrainingText(where, record, number, turn.value)
    if inputs.files and not compared:
        missing = "conversations; expected JSONL, one a line" if record < 0 else "trained turns; give --train-part all"
        raise UserError(f"{', '.join(map(str, inputs.files))}: no {missing}")
    for dataset in inputs.datasets:
        for i in range(len(dataset)):
            record += 1
            spans = dataset.spans(i)
            texts = [span.ids.tolist() for span in spans if span.trained]
            if inputs.part == "all":
                texts = [np.concatenate([span.ids for span in spans]).tolist()]
            for number, ids in enumerate(texts, start=1):
                yield TrainingText(f"{dataset.prefix}, conversation {i}", record, number, ids)


@dataclass
class Numbering:
    """Tokens as numbers: the test items' tokens count from 1, any other token is `NO_TOKEN`.

    Tokens are those of the tokenizer at `tokenizer_path`, or else words and punctuation marks in lower case.
    """

    tokenizer_path: str | None = None
    vocabulary: dict[Hashable, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.split, self.join = load_splitter(self.tokenizer_path)

    def __reduce__(self) -> tuple[object, ...]:  # a worker process loads the tokenizer itself
        return Numbering, (self.tokenizer_path, self.vocabulary)

    def learn(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the numbers of the tokens of test texts, new tokens getting the next numbers."""
        for tokens in self.split(texts):
            for token in tokens:
                self.vocabulary.setdefault(token, len(self.vocabulary) + 1)
        return self.number(texts)

    def number(self, texts: Sequence[Text]) -> list[Tokens]:
        """Return the numbers of the tokens of each text."""
        number_of = self.vocabulary.get
        return [
            np.fromiter((number_of(token, NO_TOKEN) for token in tokens), np.int32, len(tokens))
            for tokens in self.tokens(texts)
        ]

    def tokens(self, texts: Sequence[Text]) -> Iterator[Sequence[Hashable]]:
        """Yield the tokens of each text: words, or ids."""
        split = iter(self.split([text for text in texts if isinstance(text, str)]))
        for text in texts:
            yield next(split) if isinstance(text, str) else text


Split = Callable[[Sequence[str]], Iterable[Sequence[Hashable]]]
Join = Callable[[Sequence[Hashable]], str]


def load_splitter(tokenizer_path: str | None) -> tuple[Split, Join]:
    """Return the functions that split texts into tokens and write a run of tokens as text."""
    if tokenizer_path is None:
        return split_words, lambda words: " ".join(map(str, words))
    tokenizer = load_tokenizer(tokenizer_path)

    def split_ids(texts: Sequence[str]) -> Iterator[list[int]]:
        return (ids.tolist() for ids in tokenizer.encode_batch(texts))

    return split_ids, lambda ids: tokenizer.decode([int(str(token)) for token in ids])


def split_words(texts: Sequence[str]) -> Iterator[list[str]]:
    """Split texts into words and punctuation marks, in lower case; one after the other, as words take much memory."""
    return (WORDS.findall(text.lower()) for text in texts)
