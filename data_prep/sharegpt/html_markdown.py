"""Answers as ChatGPT's web page showed them (HTML) back to the Markdown that the model wrote.

In ShareGPT's raw dumps an answer is the page's `<div class="markdown prose ...">` and a question is plain text (the
browser extension took `outerHTML` of the one and `textContent` of the other). FastChat's `clean_sharegpt` sends both
through markdownify, which eats tags that users typed and escapes their underscores; here only HTML is converted.
"""

import re
from functools import cache
from typing import Any

from megatron_agent.errors import UserError

PAGE_WRAPPER = re.compile(r'\s*<div\b[^>]*\bclass="[^"]*\b(?:markdown|prose)\b', re.IGNORECASE)
BARE_BLOCK = re.compile(
    r"\s*<(?:p|pre|ol|ul|table|blockquote|h[1-6])>.*</(?:p|pre|ol|ul|table|blockquote|h[1-6])>\s*\Z"
)
HTML_BLOCK = re.compile(r"\s*<(?:div|p|pre|ol|ul|table|blockquote|h[1-6])\b", re.IGNORECASE)
LANGUAGE = re.compile(r"[\w+#.-]{1,20}")
LANGUAGE_CLASS = re.compile(r"(?:language|lang)-([\w+#.-]+)")
COPY_BUTTON = re.compile(r"\A\s*([\w+#.-]*?)(?:Copy code)+")
BACKTICKS = re.compile(r"^[ \t]*(`{3,})", re.MULTILINE)


class UnparsableHtmlError(ValueError):
    """HTML that the parser refuses, or that is nested too deeply."""


def is_html_answer(text: str) -> bool:
    """Whether an answer is HTML of the page: its wrapper, or bare blocks from the first character to the last.

    An answer that only talks about HTML is not: it begins with words or a fence, or with tags that have attributes.
    """
    if "<" not in text[:200]:
        return False
    return PAGE_WRAPPER.match(text) is not None or BARE_BLOCK.match(text.replace("\n", " ")) is not None


def is_html_block(text: str) -> bool:
    """Whether a message of a record whose answers are HTML begins as HTML does."""
    return HTML_BLOCK.match(text) is not None


def html_to_markdown(html: str) -> str:
    """Return the Markdown of a message in HTML.

    Code blocks become fences with their language, without the page's "Copy code" button; formulas become `$...$` or
    `$$...$$`; lists, tables, links, emphasis and headings (`#`) their Markdown. Raises `UnparsableHtmlError`.
    """
    import bs4

    try:
        soup = bs4.BeautifulSoup(html, "html.parser")
        for element in soup(["button", "svg", "script", "style"]):
            element.decompose()
        restore_formulas(soup)
        escape_pipes_in_tables(soup)
        for block in soup("pre"):
            reduce_to_code(soup, block)
        return str(converter().convert_soup(soup)).strip()
    except (bs4.builder.ParserRejectedMarkup, AssertionError, RecursionError) as error:
        raise UnparsableHtmlError(f"{type(error).__name__}: {error}") from error


@cache
def converter() -> Any:
    """The markdownify converter: plain text stays as it is, without escapes."""
    try:
        from markdownify import MarkdownConverter
    except ImportError as error:
        raise UserError(
            "HTML needs markdownify and beautifulsoup4; pip install 'agentlm-megatron[sharegpt]'"
        ) from error

    class PageConverter(MarkdownConverter):
        def convert_pre(self, block: Any, text: str, **_: object) -> str:
            """A fence, longer than those that the code itself holds (an answer that shows Markdown)."""
            fence = max(("```", *(f"{found}`" for found in BACKTICKS.findall(text))), key=len)
            return f"\n\n{fence}{block.get('data-language')}\n{text}\n{fence}\n\n"

    return PageConverter(
        heading_style="ATX",
        bullets="-",
        escape_asterisks=False,
        escape_underscores=False,
        escape_misc=False,
    )


def restore_formulas(soup: Any) -> None:
    """Replace what KaTeX rendered by the TeX it was made from."""
    for annotation in soup("annotation", encoding="application/x-tex"):
        rendered = annotation.find_parent(class_="katex") or annotation.find_parent("math") or annotation
        display = rendered.find_parent(class_=["katex-display", "math-display"])
        mark = "$$" if display else "$"
        (display or rendered).replace_with(f"{mark}{annotation.get_text().strip()}{mark}")


def escape_pipes_in_tables(soup: Any) -> None:
    """Write `|` inside a cell as `\\|`, in code too: bare it would end the cell."""
    for text in soup.find_all(string=re.compile(r"\|")):
        if text.find_parent(["td", "th"]):
            text.replace_with(text.replace("|", "\\|"))


def reduce_to_code(soup: Any, block: Any) -> None:
    """Leave a `<pre>` with its code as plain text, and the language in `data-language`."""
    code = block.find("code")
    header = ""
    if code is not None:
        code.extract()
        header = block.get_text().replace("Copy code", "").strip()
    text = (block if code is None else code).get_text()
    if code is None and (button := COPY_BUTTON.match(text)):
        header, text = button.group(1), text[button.end() :]
    named = LANGUAGE_CLASS.search(" ".join((code or block).get("class") or []))
    language = named.group(1) if named else header if LANGUAGE.fullmatch(header) else ""
    block.clear()
    block.append(soup.new_string(text.strip("\n")))
    block["data-language"] = language
