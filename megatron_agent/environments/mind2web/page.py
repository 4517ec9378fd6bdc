"""A page of Mind2Web: its DOM, pruned to some candidates, as the short HTML the model reads.

What is kept, and how it is written, follows `prune_tree` and `get_tree_repr` of OSU-NLP-Group/Mind2Web
(`src/data_utils/dom_utils.py`, the same in AgentTuning's `AgentBench.old/src/tasks/mind2web`), string for string.
The tree itself is never copied or changed: a page is parsed once and asked about several times.
"""

import hashlib
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from megatron_agent.errors import UserError

MAX_DEPTH = 5
MAX_DESCENDANTS = 50
MAX_SIBLINGS = 3
MAX_VALUE_WORDS = 5
MAX_WORD_CHARACTERS = 14
MAX_WORDS = 20
MAX_CHOICE_WORDS = 10
MAX_TREE_DEPTH = 256
"""Deeper pages are refused, as by the XML parser of the original's time."""

ATTRIBUTES = (
    "role",
    "aria_role",
    "type",
    "alt",
    "aria_description",
    "aria_label",
    "label",
    "title",
    "name",
    "text_value",
    "value",
    "placeholder",
    "input_checked",
    "input_value",
    "option_selected",
    "class",
)
"""Attributes whose values the model sees, in this order; their names it does not see."""

MEANINGLESS_VALUES = {"hidden", "none", "presentation", "null", "undefined"}

# From serialised XML to what the model reads; the order matters (`&amp;lt;` ends as `<`).
_REPLACEMENTS = (('"', " "), ("meta= ", ""), ("id= ", "id="), (" >", ">"))
_TEXT_ELEMENT = re.compile("<text>(.*?)</text>")
_ENTITIES = (
    ("&quot;", '"'),
    ("&amp;", "&"),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&nbsp;", " "),
    ("&ndash;", "-"),
    ("&rsquo;", "'"),
    ("&lsquo;", "'"),
    ("&ldquo;", '"'),
    ("&rdquo;", '"'),
    ("&#39;", "'"),
    ("&#40;", "("),
    ("&#41;", ")"),
)
_TEXT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_ATTRIBUTE_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
)


@dataclass(frozen=True)
class Page:
    """The HTML of a page, held compressed (a split has gigabytes of it); shown as its hash."""

    sha256: str
    compressed: bytes = field(repr=False)

    @classmethod
    def from_html(cls, html: str) -> "Page":
        data = html.encode("utf-8")
        return cls(hashlib.sha256(data).hexdigest(), zlib.compress(data, 6))

    @property
    def html(self) -> str:
        return zlib.decompress(self.compressed).decode("utf-8")


@dataclass(frozen=True)
class Choice:
    """One candidate as the model sees it: its first ten words in the pruned page."""

    node_id: str
    text: str


@dataclass
class _Node:
    """A node that stays, with the children that stay."""

    element: Any
    children: list["_Node"]
    is_candidate: bool


class Dom:
    """A parsed page. Not for several threads at once."""

    def __init__(self, html: str, where: str = "page") -> None:
        """Parse `cleaned_html`. Raises UserError, opened by `where`, when it is not well-formed XML."""
        etree = _import_etree()
        parser = etree.XMLParser(remove_comments=True, remove_pis=True, resolve_entities=False, no_network=True)
        try:
            root = etree.fromstring(html, parser)
        except (etree.XMLSyntaxError, ValueError) as error:
            raise UserError(f'{where}: "cleaned_html" is not well-formed: {error}') from error
        if next(root.iter(etree.Entity), None) is not None:
            raise UserError(f'{where}: "cleaned_html" holds an entity that its text does not define')
        self._root = root
        # Of equal ids the first element counts. The dictionary also keeps lxml's Python objects alive.
        self._by_id = {_id(element): element for element in reversed(list(root.iter("*")))}
        self._words: dict[Any, str] = {}

    def in_document_order(self, node_ids: Collection[str]) -> list[str]:
        """Return the ids in the order of their elements on the page; those it does not have come last."""
        ids = dict.fromkeys(_id(element) for element in self._root.iter("*"))
        places = {node_id: place for place, node_id in enumerate(ids)}
        return sorted(node_ids, key=lambda node_id: places.get(node_id, len(places)))

    def check_candidate(self, node_id: str, where: str) -> None:
        """Raise UserError, opened by `where`, for a candidate that is no element of the page or lies too deep."""
        element = self._by_id.get(node_id)
        if element is None or element.tag == "text":
            raise UserError(f'{where}: candidate {node_id!r} is no element of "cleaned_html"')
        if sum(1 for _ in element.iterancestors()) > MAX_TREE_DEPTH:
            raise UserError(f"{where}: candidate {node_id!r} lies deeper than {MAX_TREE_DEPTH} elements")

    def show(self, candidates: Sequence[str]) -> tuple[str, list[Choice]]:
        """Return the page pruned to `candidates`, and the choices, both in document order."""
        chosen = set(candidates)
        root = self._prune(self._root, self._nodes_to_keep(candidates), chosen)
        assert root is not None  # whatever is pruned, the root stays
        parts: list[str] = []
        spans: list[list[int]] = []
        node_ids: list[str] = []
        self._write(root, parts, spans, node_ids)
        choices = [
            Choice(node_id, " ".join(_compact("".join(parts[start:end])).split()[:MAX_CHOICE_WORDS]))
            for node_id, (start, end) in zip(node_ids, spans, strict=True)
        ]
        return _compact("".join(parts)), choices

    def _nodes_to_keep(self, candidates: Sequence[str]) -> set[str]:
        """Return the ids of the candidates, their ancestors, their next descendants and their nearest siblings."""
        keep: set[str] = set()
        for node_id in candidates:
            element = self._by_id[node_id]
            keep.add(node_id)
            keep.update(_id(ancestor) for ancestor in element.iterancestors())
            keep.update(_id(descendant) for descendant in islice(_descendants(element, 0), MAX_DESCENDANTS))
            parent = element.getparent()
            if parent is not None:
                siblings = [sibling for sibling in parent if sibling.tag != "text"]
                index = siblings.index(element)
                nearest = siblings[max(0, index - MAX_SIBLINGS) : index + MAX_SIBLINGS + 1]
                keep.update(_id(sibling) for sibling in nearest)
        return keep

    def _prune(self, element: Any, keep: set[str], candidates: set[str]) -> _Node | None:
        """Return what stays of an element: itself, its only child in its place if it says nothing, or nothing."""
        is_text, is_root = element.tag == "text", element is self._root
        kept_by = element.getparent() if is_text and not is_root else element
        if _id(kept_by) not in keep and not is_root:
            return None
        children = [node for child in element if (node := self._prune(child, keep, candidates)) is not None]
        is_candidate = not is_text and _id(element) in candidates
        attributes = len(element.attrib) - ("backend_node_id" in element.attrib and not is_candidate)
        if (
            attributes == 0
            and not is_text
            and not is_root
            and len(children) <= 1
            and not any(child.element.tag == "text" for child in children)
        ):
            return children[0] if children else None
        return _Node(element, children, is_candidate)

    def _write(self, node: _Node, parts: list[str], spans: list[list[int]], node_ids: list[str]) -> None:
        """Append the XML of a node, and where in `parts` that of each candidate begins and ends."""
        element = node.element
        tag = element.tag.rpartition("}")[2]
        span = [len(parts), 0]
        start = f"<{tag}"
        if node.is_candidate:
            node_id = _id(element)
            node_ids.append(node_id)
            spans.append(span)
            start += f' id="{node_ids.index(node_id)}"'
        text = element.text or ""
        if element.tag == "text":
            text = " ".join(text.split()[:MAX_WORDS])
            for name, value in element.attrib.items():
                if name != "backend_node_id":
                    start += f' {name}="{value.translate(_ATTRIBUTE_ESCAPES)}"'
        elif words := self._attribute_words(element):
            start += f' meta="{words.translate(_ATTRIBUTE_ESCAPES)}"'
        if text or node.children or element.tag == "text":
            parts.append(f"{start}>{text.translate(_TEXT_ESCAPES)}")
            for child in node.children:
                self._write(child, parts, spans, node_ids)
            parts.append(f"</{tag}>")
        else:
            parts.append(start + "/>")
        if element.tail:
            parts.append(element.tail.translate(_TEXT_ESCAPES))
        span[1] = len(parts)

    def _attribute_words(self, element: Any) -> str:
        """Return the words of the attributes: five of each value, none twice, none long, twenty together."""
        words = self._words.get(element)
        if words is None:
            values: dict[str, None] = {}
            for name in ATTRIBUTES:
                value = (element.get(name) or "").lower()
                if value and value not in MEANINGLESS_VALUES and not value.startswith("http"):
                    short = [word for word in value.split() if len(word) <= MAX_WORD_CHARACTERS]
                    values[" ".join(short[:MAX_VALUE_WORDS])] = None
            words = self._words[element] = " ".join(" ".join(values).split()[:MAX_WORDS])
        return words


def _id(element: Any) -> str:
    return element.get("backend_node_id", "")


def _descendants(element: Any, depth: int) -> Iterator[Any]:
    """Yield the elements below, in document order, down to six levels (the original counts from 0)."""
    if depth <= MAX_DEPTH:
        for child in element:
            yield child
            yield from _descendants(child, depth + 1)


def _compact(xml: str) -> str:
    for old, new in _REPLACEMENTS:
        xml = xml.replace(old, new)
    xml = _TEXT_ELEMENT.sub(r"\1", xml)
    for old, new in _ENTITIES:
        xml = xml.replace(old, new)
    return " ".join(xml.split())


def _import_etree() -> Any:
    try:
        from lxml import etree
    except ImportError as error:
        raise UserError("the Mind2Web task needs lxml; pip install 'agentlm-megatron[mind2web]'") from error
    return etree
