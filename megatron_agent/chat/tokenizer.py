"""Tokenizers that cannot be talked into a control token.

`tokenizer.model` is read by SentencePiece itself, which never parses `</s>` and its like out of text.
`tokenizer.json` is read by Hugging Face `tokenizers` with `encode_special_tokens` set, so that the special
tokens of the file are only text when they occur in content; that is probed when the file is loaded and checked
on every call. (transformers is not used: its 5.x conversion of `tokenizer.model` changes ids of texts with runs of
blanks, and its tokenizers turn a literal `</s>` into the control id.)
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from megatron_agent.chat.conversation import refuse_lone_surrogates
from megatron_agent.chat.word_cache import IdArray, word_cache
from megatron_agent.errors import UserError
from megatron_agent.files import read_json_object, sha256_file
from megatron_agent.processes import available_cores


class Tokenizer(Protocol):
    """What the project asks of a tokenizer."""

    vocab_size: int
    """Number of ids, added tokens included."""
    bos_id: int
    eos_id: int
    control_ids: frozenset[int]
    """Ids that only a template may produce."""
    sha256: str
    """Hash of the tokenizer file."""
    name: str
    """The path it was loaded from, as given."""

    def encode(self, text: str) -> list[int]:
        """Encode content: no control token is added or recognised. `UserError` for a lone surrogate."""

    def encode_batch(self, texts: Sequence[str]) -> list[IdArray]:
        """`encode` of many texts at once, which is faster; arrays `[n]` that must not be written to."""

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids; control tokens come out as their pieces."""

    def control_id(self, piece: str) -> int:
        """Id of a control piece such as `<|im_end|>`; `UserError` when there is none of that name."""


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load a tokenizer from a folder (`tokenizer.model` preferred, else `tokenizer.json`) or one of these files.

    For `tokenizer.json` the BOS and EOS tokens are read from `tokenizer_config.json`, `special_tokens_map.json` or
    `config.json` beside it. Raises `UserError` when a file is missing, broken, or names no BOS or EOS.
    """
    path = Path(path)
    file = path
    if path.is_dir():
        candidates = [path / "tokenizer.model", path / "tokenizer.json"]
        found = [candidate for candidate in candidates if candidate.is_file()]
        if not found:
            raise UserError(f"{path}: expected a tokenizer.model or a tokenizer.json in this folder, found neither")
        file = found[0]
    if not file.is_file():
        raise UserError(f"{file}: no such tokenizer file or folder; check the path")
    if file.suffix == ".json":
        return JsonTokenizer(file, str(path))
    return SentencePieceTokenizer(file, str(path))


class SentencePieceTokenizer:
    """A `tokenizer.model` through SentencePiece."""

    def __init__(self, file: Path, name: str) -> None:
        from sentencepiece import SentencePieceProcessor

        processor = SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(file.read_bytes())
        except RuntimeError as error:
            raise broken_file(file, "SentencePiece model", error) from error
        self.processor = processor
        self.name = name
        self.sha256 = sha256_file(file)
        self.vocab_size: int = processor.vocab_size()
        self.control_ids = frozenset(i for i in range(self.vocab_size) if processor.IsControl(i))
        self.bos_id: int = processor.bos_id()
        self.eos_id: int = processor.eos_id()
        self.words = word_cache(processor)
        for piece, token in (("BOS", self.bos_id), ("EOS", self.eos_id)):
            if token < 0:
                raise UserError(f"{file}: the model defines no {piece} token; a chat model's tokenizer needs one")

    def encode(self, text: str) -> list[int]:
        """Encode content; see :class:`Tokenizer`."""
        ids: list[int] = self.encode_batch([text])[0].tolist()
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[IdArray]:
        """Encode many texts; see :class:`Tokenizer`."""
        check_texts(texts)
        if self.words is not None:
            return check_content_ids(self.words.encode_batch(texts), texts, self)
        batch = self.processor.encode(list(texts), out_type=int, num_threads=available_cores())
        return check_content_ids([np.array(ids, dtype=np.int32) for ids in batch], texts, self)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids; see :class:`Tokenizer`."""
        return decode_around_controls(ids, self.control_ids, self.processor.decode, self.processor.id_to_piece)

    def control_id(self, piece: str) -> int:
        """Id of a control piece; see :class:`Tokenizer`."""
        token = self.processor.piece_to_id(piece)
        if token not in self.control_ids:  # unknown pieces come back as the id of <unk>
            raise no_control_piece(piece, self.name, known=self.processor.id_to_piece(sorted(self.control_ids)))
        return token


class JsonTokenizer:
    """A `tokenizer.json` through Hugging Face `tokenizers`."""

    def __init__(self, file: Path, name: str) -> None:
        from tokenizers import Tokenizer as HuggingFaceTokenizer

        try:
            text = file.read_text(encoding="utf-8")
            tokenizer = HuggingFaceTokenizer.from_str(text)
        except Exception as error:  # `tokenizers` raises plain Exception
            raise broken_file(file, "tokenizer.json", error) from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # special tokens in a text are text
        self.tokenizer = tokenizer
        self.name = name
        self.sha256 = sha256_file(file)
        self.vocab_size: int = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        special = {i: token.content for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self.bos_id = self.named_token(file, "bos")
        self.eos_id = self.named_token(file, "eos")
        # Characters outside the vocabulary may become <unk>: that id is content, unless it ends sequences too.
        unknown = tokenizer.token_to_id(json.loads(text)["model"].get("unk_token") or "")
        self.control_ids = frozenset(special) - {unknown} | {self.bos_id, self.eos_id}
        for token in sorted(self.control_ids):
            piece = self.piece(token)
            self.encode_batch([piece, f"a{piece}b", f"a {piece} b"])  # raises when this gives a control id

    def named_token(self, file: Path, role: str) -> int:
        """Id of the tokenizer's `bos` or `eos`, as the configuration files beside `file` name it."""
        for config_name in ("tokenizer_config.json", "special_tokens_map.json", "config.json"):
            path = file.parent / config_name
            config: dict[str, Any] = {}
            if path.is_file():
                config = read_json_object(path, "copy the file from the model's folder again")
            value = config.get(f"{role}_token", config.get(f"{role}_token_id"))
            if isinstance(value, dict):
                value = value.get("content")
            if isinstance(value, list):  # Llama-3 lists several end tokens, the first one is the tokenizer's
                value = value[0] if value else None
            token = self.tokenizer.token_to_id(value) if isinstance(value, str) else value
            if isinstance(token, int) and 0 <= token < self.vocab_size:
                return token
            if value is not None:
                raise UserError(f"{path}: {role} token {value!r} is not in {file.name}")
        raise UserError(
            f"{file}: no {role.upper()} token found: expected `{role}_token` in tokenizer_config.json or "
            f"special_tokens_map.json, or `{role}_token_id` in config.json, in {file.parent}; "
            "copy these files from the model's folder"
        )

    def piece(self, token: int) -> str:
        """The written form of a token; vocabularies may have holes."""
        return self.tokenizer.id_to_token(token) or f"<id {token}>"

    def encode(self, text: str) -> list[int]:
        """Encode content; see :class:`Tokenizer`."""
        ids: list[int] = self.encode_batch([text])[0].tolist()
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[IdArray]:
        """Encode many texts, on all cores; see :class:`Tokenizer`."""
        check_texts(texts)
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return check_content_ids([np.array(encoding.ids, dtype=np.int32) for encoding in encodings], texts, self)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids; see :class:`Tokenizer`."""
        return decode_around_controls(
            ids,
            self.control_ids,
            lambda run: self.tokenizer.decode(run, skip_special_tokens=False),
            self.piece,
        )

    def control_id(self, piece: str) -> int:
        """Id of a control piece; see :class:`Tokenizer`."""
        token = self.tokenizer.token_to_id(piece)
        if token is None or token not in self.control_ids:
            raise no_control_piece(piece, self.name, known=[self.piece(i) for i in sorted(self.control_ids)])
        return int(token)


def check_texts(texts: Sequence[str]) -> None:
    """Raise `UserError` for a text that is no Unicode text: neither library can encode a lone surrogate."""
    for text in texts:
        refuse_lone_surrogates(text, f"text to encode (it begins {text[:40]!r})")


def check_content_ids(batch: list[IdArray], texts: Sequence[str], tokenizer: Tokenizer) -> list[IdArray]:
    """Return `batch` when no text became a control id, else raise `UserError`."""
    is_control = np.zeros(tokenizer.vocab_size, dtype=bool)
    is_control[list(tokenizer.control_ids)] = True
    if batch and is_control[np.concatenate(batch)].any():
        ids, text = next((ids, text) for ids, text in zip(batch, texts, strict=True) if is_control[ids].any())
        raise UserError(
            f"tokenizer {tokenizer.name}: turns ordinary text into control id {ids[is_control[ids]][0]} "
            f"(text begins {text[:40]!r}); message texts could forge turns, so it is refused: "
            "use the tokenizer.model of the model, or a tokenizer.json that can encode its special tokens as text"
        )
    return batch


def decode_around_controls(
    ids: Sequence[int],
    controls: frozenset[int],
    decode: Callable[[list[int]], str],
    piece: Callable[[int], str],
) -> str:
    """Decode the runs between control ids each on its own; write the control tokens as their pieces."""
    parts: list[str] = []
    run: list[int] = []
    for token in map(int, ids):
        if token in controls:
            if run:
                parts.append(decode(run))
            parts.append(piece(token))
            run = []
        else:
            run.append(token)
    if run:
        parts.append(decode(run))
    return "".join(parts)


def no_control_piece(piece: str, name: str, known: Sequence[str]) -> UserError:
    """The error for a control piece that the tokenizer does not have."""
    return UserError(
        f"tokenizer {name} has no control token {piece!r} (it has {', '.join(known[:8])}"
        f"{', ...' if len(known) > 8 else ''}); choose another template or the model's own tokenizer"
    )


def broken_file(file: Path, expected: str, error: Exception) -> UserError:
    """The error for a tokenizer file that its library cannot read."""
    detail = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"{file}: expected a {expected}, got {file.stat().st_size:,} bytes that do not parse ({detail[:160]}); "
        "a Git LFS pointer or a cut download looks like this: fetch the file again"
    )
