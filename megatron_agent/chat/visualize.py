"""Show which tokens a model is trained on: one colour for trained tokens, another for context.

The most useful check of a chat data set is to look at it (nanochat's `visualize_tokenization` is the model).
"""

import html
from collections.abc import Iterable, Sequence

from megatron_agent.chat.template import Span, count_tokens
from megatron_agent.chat.tokenizer import Tokenizer

TRAINED_ANSI, CONTEXT_ANSI, RESET_ANSI = "\x1b[1;32m", "\x1b[2m", "\x1b[0m"

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Masked examples</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, monospace;
      border: 1px solid #ddd; border-radius: 4px; padding: 1em; }}
.trained {{ background: #c9f2cf; color: #064d15; }}
.context {{ color: #777; }}
p.counts {{ color: #555; margin: 0; }}
</style>
</head>
<body>
<h1>Masked examples</h1>
<p><span class="trained">Trained tokens</span> enter the loss; <span class="context">context tokens</span>
are read by the model only.</p>
{examples}
</body>
</html>
"""


def decode_spans(spans: Sequence[Span], tokenizer: Tokenizer) -> list[str]:
    """Decode each span as it reads inside its exchange; the texts join to the decoded document.

    A SentencePiece model drops the blank before the first word of whatever it decodes, so a span decoded alone
    would lose the blank between `[/INST]` and the answer. The text of a span is therefore what it adds to the
    text of everything since the last control token.
    """
    texts: list[str] = []
    open_run: list[int] = []
    for span in spans:
        before = tokenizer.decode(open_run)
        open_run = open_run + span.ids
        texts.append(tokenizer.decode(open_run)[len(before) :])
        last_control = max((i for i, token in enumerate(open_run) if token in tokenizer.control_ids), default=-1)
        open_run = open_run[last_control + 1 :]
    return texts


def render_terminal(spans: Sequence[Span], tokenizer: Tokenizer) -> str:
    """Return the document with ANSI colours: trained tokens bold green, context dim.

    Control characters of the text (escape sequences of recorded terminals) are shown as symbols, never sent.
    """
    coloured = (
        f"{TRAINED_ANSI if span.trained else CONTEXT_ANSI}{show_control_characters(text)}{RESET_ANSI}"
        for span, text in zip(spans, decode_spans(spans, tokenizer), strict=True)
    )
    return "".join(coloured)


def render_html(examples: Iterable[tuple[str, Sequence[Span]]], tokenizer: Tokenizer) -> str:
    """Return a self-contained HTML page of `(title, spans)` examples."""
    sections = []
    for title, spans in examples:
        body = "".join(
            f'<span class="{"trained" if span.trained else "context"}">'
            f"{html.escape(show_control_characters(text))}</span>"
            for span, text in zip(spans, decode_spans(spans, tokenizer), strict=True)
        )
        trained = count_tokens(span for span in spans if span.trained)
        sections.append(
            f"<h2>{html.escape(show_control_characters(title))}</h2>\n"
            f'<p class="counts">{count_tokens(spans):,} tokens, {trained:,} trained</p>\n<pre>{body}</pre>'
        )
    return PAGE.format(examples="\n".join(sections))


def show_control_characters(text: str) -> str:
    """Replace control characters other than tab and newline by visible symbols (ESC becomes U+241B)."""
    table = {code: 0x2400 + code for code in range(32) if code not in (9, 10)}
    table[0x7F] = 0x2421
    table.update(dict.fromkeys(range(0x80, 0xA0), 0xFFFD))  # C1 controls: some terminals obey them
    return text.translate(table)
