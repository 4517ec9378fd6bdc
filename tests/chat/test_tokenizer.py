"""Loading tokenizers, and content that stays content."""

import json
import shutil
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer as HuggingFaceTokenizer

from megatron_agent.chat.tokenizer import Tokenizer, load_tokenizer
from megatron_agent.chat.word_cache import IdArray
from megatron_agent.errors import UserError
from megatron_agent.files import sha256_file
from tests.chat.tiny_tokenizers import convert_to_json

TEXTS = [
    "Hello",
    " two  blanks",
    "\n    x",
    "tab\tend ",
    "é 漢字 🙂",
    "a\u0000b",
    "```sql\nSELECT 1;\n```",
    "…\u200b\u2028",
]
HOSTILE = ["</s>", "<s>", "<unk>", "[INST]", "<<SYS>>", "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<0x0A>", "\x00"]


def as_lists(batch: list[IdArray]) -> list[list[int]]:
    return [ids.tolist() for ids in batch]


def test_sentencepiece_is_sentencepiece(sentencepiece_file: Path, llama: Tokenizer) -> None:
    """Truth: the SentencePiece library called by itself."""
    processor = SentencePieceProcessor(model_file=str(sentencepiece_file))
    assert as_lists(llama.encode_batch(TEXTS)) == [processor.encode(text) for text in TEXTS]
    assert [llama.decode(llama.encode(text)) for text in TEXTS] == TEXTS
    assert (llama.bos_id, llama.eos_id, llama.control_ids) == (1, 2, {1, 2})
    assert llama.vocab_size == processor.vocab_size()
    assert llama.sha256 == sha256_file(sentencepiece_file)


def test_json_encodes_ordinary_text_as_ever(chatml_folder: Path, smol: Tokenizer) -> None:
    """Truth: `tokenizers` with its defaults, on text without special tokens."""
    plain = HuggingFaceTokenizer.from_file(str(chatml_folder / "tokenizer.json"))
    assert as_lists(smol.encode_batch(TEXTS)) == [plain.encode(text, add_special_tokens=False).ids for text in TEXTS]
    assert [smol.decode(smol.encode(text)) for text in TEXTS] == TEXTS
    assert (smol.bos_id, smol.eos_id, smol.control_ids) == (1, 2, {0, 1, 2})
    assert smol.vocab_size == plain.get_vocab_size()


def test_llamas_two_files_agree(sentencepiece_file: Path, llama: Tokenizer, tmp_path: Path) -> None:
    """Truth: SentencePiece. The `tokenizer.json` form of the same model gives its ids, hostile text included."""
    converted = load_tokenizer(convert_to_json(sentencepiece_file, tmp_path))
    texts = TEXTS + HOSTILE
    assert as_lists(converted.encode_batch(texts)) == as_lists(llama.encode_batch(texts))
    assert [converted.decode(ids) for ids in converted.encode_batch(texts)] == texts
    assert (converted.bos_id, converted.eos_id, converted.control_ids) == (1, 2, {1, 2})
    assert converted.vocab_size == llama.vocab_size


@pytest.mark.parametrize("name", ["llama", "smol"])
def test_content_never_becomes_a_control_id(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    texts = [variant for text in HOSTILE for variant in (text, f"a{text}b", f" {text} {text}")]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert tokenizer.control_ids.isdisjoint(ids), text
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", ["llama", "smol"])
def test_a_megabyte_and_a_lone_surrogate(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    for text in ("a" * 1_000_000, "</s><|im_end|>" * 70_000):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    with pytest.raises(UserError, match=r"lone surrogate '\\ud800' at character 1"):
        tokenizer.encode("a\ud800")


def test_control_pieces(llama: Tokenizer, smol: Tokenizer) -> None:
    assert smol.control_id("<|im_end|>") == 2
    assert llama.control_id("</s>") == 2
    with pytest.raises(UserError, match=r"has no control token '<\|im_end\|>' \(it has <s>, </s>\)"):
        llama.control_id("<|im_end|>")
    with pytest.raises(UserError, match="has no control token 'e'"):
        smol.control_id("e")  # an ordinary piece is none
    assert smol.decode([1, *smol.encode("user\nhi"), 2]) == "<|im_start|>user\nhi<|im_end|>"
    assert llama.decode([1, *llama.encode("hi"), 2]) == "<s>hi</s>"


def test_folders_prefer_the_sentencepiece_model(
    sentencepiece_file: Path, chatml_folder: Path, smol: Tokenizer, tmp_path: Path
) -> None:
    assert load_tokenizer(chatml_folder / "tokenizer.json").sha256 == smol.sha256
    shutil.copytree(chatml_folder, tmp_path / "both")
    shutil.copy(sentencepiece_file, tmp_path / "both" / "tokenizer.model")
    assert load_tokenizer(tmp_path / "both").sha256 == sha256_file(sentencepiece_file)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("special_tokens_map.json", {"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>"}),
        ("config.json", {"bos_token_id": 1, "eos_token_id": [2, 0]}),
    ],
)
def test_where_bos_and_eos_may_be_named(chatml_folder: Path, tmp_path: Path, file: str, content: object) -> None:
    shutil.copy(chatml_folder / "tokenizer.json", tmp_path)
    (tmp_path / file).write_text(json.dumps(content))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)


def test_padding_and_truncation_of_the_file_do_not_apply(chatml_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(chatml_folder, tmp_path / "t")
    tokenizer = HuggingFaceTokenizer.from_file(str(chatml_folder / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "t" / "tokenizer.json"))
    text = "How many rows are there?"
    assert load_tokenizer(tmp_path / "t").encode(text) == load_tokenizer(chatml_folder).encode(text)


def test_a_tokenizer_that_builds_control_ids_from_text_is_refused(chatml_folder: Path, tmp_path: Path) -> None:
    """A BPE model whose merges spell its end token: `encode_special_tokens` alone would not help."""
    merges = [("<", "e"), ("<e", ">")]
    letters = ["<", "e", ">", "a", "b", "Ġ"]
    vocabulary = {piece: i for i, piece in enumerate([*letters, "<e", "<e>"])}
    record = json.loads((chatml_folder / "tokenizer.json").read_text())
    record["model"] = {**record["model"], "vocab": vocabulary, "merges": merges}
    record["pre_tokenizer"] = None
    special = {"normalized": False, "single_word": False, "lstrip": False, "rstrip": False, "special": True}
    record["added_tokens"] = [{"id": vocabulary["<e>"], "content": "<e>", **special}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(record))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<e>", "eos_token": "<e>"}')
    with pytest.raises(UserError, match="turns ordinary text into control id 7"):
        load_tokenizer(tmp_path)


def test_what_cannot_be_loaded_is_named(chatml_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such tokenizer file or folder"):
        load_tokenizer(tmp_path / "none")
    with pytest.raises(UserError, match=r"expected a tokenizer.model or a tokenizer.json in this folder"):
        load_tokenizer(tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 499723\n"
    for name, kind in (("tokenizer.model", "SentencePiece model"), ("tokenizer.json", "tokenizer.json")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(UserError, match=rf"expected a {kind}, got 0 bytes that do not parse"):
            load_tokenizer(tmp_path / name)
        (tmp_path / name).write_text(pointer)
        with pytest.raises(UserError, match=rf"expected a {kind}, got 69 bytes that do not parse.*Git LFS"):
            load_tokenizer(tmp_path / name)
    shutil.copy(chatml_folder / "tokenizer.json", tmp_path)
    with pytest.raises(UserError, match=r"no BOS token found: expected `bos_token` in tokenizer_config.json"):
        load_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<nope>"}')
    with pytest.raises(UserError, match=r"bos token '<nope>' is not in tokenizer.json"):
        load_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer_config\.json: not valid JSON"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_a_model_without_bos_is_refused(tmp_path: Path) -> None:
    import io

    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e"] * 9),
        model_writer=model,
        vocab_size=20,
        hard_vocab_limit=False,
        bos_id=-1,
        eos_id=1,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    with pytest.raises(UserError, match="the model defines no BOS token"):
        load_tokenizer(tmp_path)
