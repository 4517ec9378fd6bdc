"""Chat templates as data, and conversations turned into token ids and loss flags, segment by segment.

Ids and flags are built together, so that they cannot drift apart: no prefix is re-tokenised and counted, no mask
is found by looking for token values. Message texts only ever pass through `Tokenizer.encode_batch`, which
cannot produce a control id; control ids come from the template alone.

llama-2 is Meta's format with one deliberate difference. Meta encodes every exchange as the one string
`[INST] question [/INST] answer ` between BOS and EOS; here question and answer are encoded apart, which gives
the same ids (SentencePiece puts its dummy blank before the stripped answer), and the blank after the answer is
left out, because a model that learns it must emit a blank before every `</s>`.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megatron_agent.chat.conversation import Conversation, Turn, check_structure, split_turns
from megatron_agent.chat.tokenizer import Tokenizer
from megatron_agent.errors import UserError


@dataclass(frozen=True)
class Control:
    """A control token: `bos` and `eos` are the tokenizer's own, anything else is the piece itself."""

    piece: str


Part = Control | str  # a str is a text with the fields {system}, {human} or {gpt}

BOS, EOS = Control("bos"), Control("eos")
IM_START, IM_END = Control("<|im_start|>"), Control("<|im_end|>")
START_HEADER, END_HEADER, EOT = Control("<|start_header_id|>"), Control("<|end_header_id|>"), Control("<|eot_id|>")


@dataclass(frozen=True)
class Template:
    """A chat format as data. Only `gpt` is ever trained; everything else is context."""

    name: str
    system_prompt: str
    """Used when neither the conversation nor the caller brings one; empty means none."""
    beginning: tuple[Part, ...]
    """Before everything else, once a conversation."""
    prologue: tuple[Part, ...]
    """Before the first exchange, when there is a system prompt."""
    system_block: str
    """What `{system}` in `human` stands for in the first exchange, when there is a system prompt."""
    human: tuple[Part, ...]
    """The user's message, up to where the model answers."""
    gpt: tuple[Part, ...]
    """The answer and the token that ends it."""
    epilogue: tuple[Part, ...]
    """After the answer."""


TEMPLATES: dict[str, Template] = {
    # AgentTuning's prompt: Llama-2-chat with the first sentence of Meta's system prompt.
    "llama-2": Template(
        name="llama-2",
        system_prompt="You are a helpful, respectful and honest assistant.",
        beginning=(),
        prologue=(),
        system_block="<<SYS>>\n{system}\n<</SYS>>\n\n",
        human=(BOS, "[INST] {system}{human} [/INST]"),
        gpt=("{gpt}", EOS),
        epilogue=(),
    ),
    # SmolLM2's chat template, with the system prompt that it inserts when a client sends none.
    "chatml": Template(
        name="chatml",
        system_prompt="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
        beginning=(),
        prologue=(IM_START, "system\n{system}", IM_END, "\n"),
        system_block="",
        human=(IM_START, "user\n{human}", IM_END, "\n", IM_START, "assistant\n"),
        gpt=("{gpt}", IM_END),
        epilogue=("\n",),
    ),
    # Llama-3's format with AgentTuning's system prompt; Llama-3.1's own chat template puts two dates before it.
    "llama-3": Template(
        name="llama-3",
        system_prompt="You are a helpful, respectful and honest assistant.",
        beginning=(BOS,),
        prologue=(START_HEADER, "system", END_HEADER, "\n\n{system}", EOT),
        system_block="",
        human=(START_HEADER, "user", END_HEADER, "\n\n{human}", EOT, START_HEADER, "assistant", END_HEADER, "\n\n"),
        gpt=("{gpt}", EOT),
        epilogue=(),
    ),
}


@dataclass(frozen=True, eq=False)
class Span:
    """A maximal run of tokens with one loss flag; `ids` is `[n]`."""

    ids: npt.NDArray[np.integer]
    trained: bool

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Span) and self.trained == other.trained and np.array_equal(self.ids, other.ids)


Exchange = list[Span]  # one (human, gpt) pair

Piece = tuple[Part, bool]  # a text ready to encode or a control token, and its loss flag


def get_template(name: str) -> Template:
    """Return the template called `name`; `UserError` lists the names there are."""
    if name not in TEMPLATES:
        raise UserError(f"unknown chat template {name!r}; expected one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def encode_conversation(
    conversation: Conversation, template: Template, tokenizer: Tokenizer, system_prompt: str | None = None
) -> list[Exchange]:
    """Encode one conversation; see `encode_conversations`."""
    return encode_conversations([conversation], template, tokenizer, system_prompt)[0]


def encode_conversations(
    conversations: Iterable[Conversation],
    template: Template,
    tokenizer: Tokenizer,
    system_prompt: str | None = None,
) -> list[list[Exchange]]:
    """Encode conversations with one `encode_batch` call over all of their distinct texts.

    Message texts are stripped (AgentTuning's evaluation client does so too). The system prompt is the
    conversation's own leading system turn, else `system_prompt`, else the template's; an empty one means
    none. ChatML's system prologue belongs to the first exchange. Returns, per conversation, one list of spans per
    (human, gpt) pair. Raises `UserError` for a broken structure (`check_structure`), a lone surrogate, or a
    tokenizer without the template's control tokens.
    """
    plans: list[list[list[Piece]]] = []
    for conversation in conversations:
        check_structure(conversation, f"conversation {conversation.id!r}")
        own_system, exchanges = split_turns(conversation)
        system = choose_system_prompt(template, own_system, system_prompt)
        plans.append(
            [
                exchange_pieces(template, human, gpt, system if index == 0 else None)
                for index, (human, gpt) in enumerate(exchanges)
            ]
        )
    encoded = encode_pieces((piece for plan in plans for pieces in plan for piece in pieces), template, tokenizer)
    return [[join_spans((encoded[part], flag) for part, flag in pieces) for pieces in plan] for plan in plans]


def encode_exchanges_as_first(
    conversation: Conversation, template: Template, tokenizer: Tokenizer, system_prompt: str | None = None
) -> list[Exchange]:
    """Encode every exchange as if it opened the conversation, with the system prompt before it.

    What `data_prep.build_indexed_dataset` begins the parts of an over-long conversation with.
    """
    own_system, exchanges = split_turns(conversation)
    system = choose_system_prompt(template, own_system, system_prompt)
    plan = [exchange_pieces(template, human, gpt, system) for human, gpt in exchanges]
    encoded = encode_pieces((piece for pieces in plan for piece in pieces), template, tokenizer)
    return [join_spans((encoded[part], flag) for part, flag in pieces) for pieces in plan]


def encode_prompt(
    turns: Sequence[Turn], template: Template, tokenizer: Tokenizer, system_prompt: str | None = None
) -> list[int]:
    """Return the ids of a conversation whose last human turn waits for an answer: what a model is fed.

    `turns` is as in a conversation (system turn optional, human first) but ends on a human turn. The ids are
    exactly those that training put before the answer of that turn.
    """
    if not turns or turns[-1].speaker != "human":
        last = turns[-1].speaker if turns else "nothing"
        raise UserError(f"prompt: expected the last turn to be human, got {last}")
    waiting = Conversation("prompt", (*turns, Turn("gpt", "?", loss=True)))  # a stand-in for the answer
    exchanges = encode_conversation(waiting, template, tokenizer, system_prompt)
    context = exchanges[-1][: next(i for i, span in enumerate(exchanges[-1]) if span.trained)]
    return [token for span in [*flatten(exchanges[:-1]), *context] for token in span.ids.tolist()]


def flatten(exchanges: Iterable[Exchange]) -> list[Span]:
    """Join exchanges into one document of maximal spans (two neighbours never have the same flag)."""
    return join_spans((span.ids, span.trained) for exchange in exchanges for span in exchange)


def count_tokens(spans: Iterable[Span]) -> int:
    """Number of tokens in `spans`."""
    return sum(len(span.ids) for span in spans)


def choose_system_prompt(template: Template, own: str | None, given: str | None) -> str:
    """The conversation's own system prompt, else the caller's, else the template's, stripped."""
    if own is not None:
        return own.strip()
    return (template.system_prompt if given is None else given).strip()


def exchange_pieces(template: Template, human: Turn, gpt: Turn, system: str | None) -> list[Piece]:
    """Lay out one exchange. The first one of a conversation has a `system` prompt, empty for none; the others None."""
    context = list(template.beginning) if system is not None else []
    context += [fill(part, system=system) for part in template.prologue] if system else []
    block = template.system_block.format(system=system) if system else ""
    context += [fill(part, system=block, human=human.value.strip()) for part in template.human]
    answer = [fill(part, gpt=gpt.value.strip()) for part in template.gpt]
    return [
        *((part, False) for part in context),
        *((part, gpt.trained) for part in answer),
        *((part, False) for part in template.epilogue),
    ]


def fill(part: Part, **fields: str) -> Part:
    """Put texts into the fields of `part` (braces inside the texts stay text); control tokens stay as they are."""
    return part.format(**fields) if isinstance(part, str) else part


def encode_pieces(
    pieces: Iterable[Piece], template: Template, tokenizer: Tokenizer
) -> dict[Part, npt.NDArray[np.integer]]:
    """Encode every distinct text of `pieces` in one batch, look every control token up."""
    parts = dict.fromkeys(part for part, _ in pieces)
    texts = [part for part in parts if isinstance(part, str)]
    encoded: dict[Part, npt.NDArray[np.integer]] = dict(zip(texts, tokenizer.encode_batch(texts), strict=True))
    for part in parts:
        if isinstance(part, Control):
            encoded[part] = np.array([control_id(part, template, tokenizer)], dtype=np.int32)
    return encoded


def control_id(control: Control, template: Template, tokenizer: Tokenizer) -> int:
    """Return the id of a template's control token; `UserError` when the tokenizer lacks it."""
    if control in (BOS, EOS):
        return tokenizer.bos_id if control == BOS else tokenizer.eos_id
    try:
        return tokenizer.control_id(control.piece)
    except UserError as error:
        raise UserError(f"template {template.name!r} does not fit the tokenizer: {error}") from error


def check_template_fits(template: Template, tokenizer: Tokenizer) -> None:
    """Raise `UserError` when the tokenizer lacks one of the template's control tokens."""
    for part in (*template.beginning, *template.prologue, *template.human, *template.gpt, *template.epilogue):
        if isinstance(part, Control):
            control_id(part, template, tokenizer)


def join_spans(pieces: Iterable[tuple[npt.NDArray[np.integer], bool]]) -> list[Span]:
    """Join neighbouring runs of ids that have the same flag."""
    filled = [(ids, trained) for ids, trained in pieces if len(ids)]
    return [
        Span(np.concatenate([ids for ids, _ in run]), trained)
        for trained, run in itertools.groupby(filled, key=lambda piece: piece[1])
    ]
