"""WebShop's pages as text, and what can be clicked on them.

The evaluator takes the clickables from the page's HTML (`web_agent_site/envs/web_agent_text_env.py`,
`get_available_actions`, princeton-nlp/WebShop): the buttons' texts in lower case, then the products', then the values
of the options. The released rows keep only the visible texts, joined by ` [SEP] `. Everything but the options can be
read off them; among the options, names and values look alike.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

OBSERVATION, AVAILABLE_ACTIONS = "Observation:\n", "\n\nAvailable Actions:\n"
"""The evaluator's wrapper: page and dictionary of clickables come after these."""
SEPARATOR = " [SEP] "
RESULTS = re.compile(r"Page \d+ \(Total results: \d+\)")
ASIN = re.compile(r"[A-Z0-9]{10}")
TAILS = (
    ["Description", "Features", "Reviews", "Buy Now"],
    ["Description", "Features", "Reviews", "Attributes", "Buy Now"],
)
# Names of options seen in the catalogue's pages (Amazon's names of product variations).
_OPTION_NAMES = """
band color, band size, band width, capacity, color, color name, compatible devices, configuration, cup size,
customer package type, digital storage capacity, edition, finish type, fit type, flavor, flavor name, format,
frame color, frame size, gem type, grip size, hand orientation, hard disk size, heel height, item display
length, item length, item package quantity, item shape, item thickness, item weight, lens color, lens width,
length, length range, material, material type, maximum load, memory storage capacity, metal type, model, model
name, model number, number of items, number of pieces, operating system, package quantity, pattern, pattern
name, platform, power source, processor type, product packaging, ram size, ring size, scent, scent name,
service provider, set name, shape, shoe width, size, size name, special size, special size type, special
feature, stone shape, style, style name, team name, tension level, total diamond weight, unit count, voltage,
wattage, width, width range
"""
OPTION_NAMES = frozenset(" ".join(_OPTION_NAMES.split()).split(", "))


@dataclass(frozen=True)
class ShopPage:
    """What the evaluator's `Available Actions` says of a page, and the parts of an item page."""

    has_search_bar: bool
    clickables: tuple[str, ...]
    option_segments: tuple[str, ...] = ()
    """Names and values of an item's options, in the page's order."""
    undecided: bool = False
    """Whether it could not be told which of the option segments are names."""

    def available_actions(self) -> str:
        """Return the Python dictionary that the evaluator prints."""
        return str({"has_search_bar": self.has_search_bar, "clickables": list(self.clickables)})


def read_page(text: str, option_names: frozenset[str] = OPTION_NAMES) -> ShopPage:
    """Return the page that a text shows, wrapped or not; raises `ValueError` when it is none of WebShop's pages.

    The first segment of an item's options is a name; a later one is a name when it is in `option_names` and not the
    last. Undecided: the first name is unknown (others may be too), or a name has no value after it.
    """
    segments = text.removeprefix(OBSERVATION).partition(AVAILABLE_ACTIONS)[0].strip().split(SEPARATOR)
    if "Instruction:" not in segments[:2]:
        raise ValueError("no `Instruction:` at the start of the page")
    if segments[-1] == "Search" and "Back to Search" not in segments:
        return ShopPage(has_search_bar=True, clickables=("search",))
    if "Back to Search" not in segments:
        raise ValueError("neither a search page nor a page with `Back to Search`")
    rest = segments[segments.index("Back to Search") + 1 :]
    if rest and RESULTS.fullmatch(rest[0]):
        return results_page(rest[1:])
    if not rest or rest[0] != "< Prev":
        raise ValueError("neither `Page n (Total results: n)` nor `< Prev` after `Back to Search`")
    body = rest[1:]
    for tail in TAILS:
        if body[-len(tail) :] == tail:
            return item_page(body[: -len(tail)], tail, option_names)
    return ShopPage(has_search_bar=False, clickables=("back to search", "< prev"))


def results_page(segments: list[str]) -> ShopPage:
    """Read the segments after `Page n (Total results: n)`: buttons, then number, title and price of each product."""
    buttons = ["back to search"]
    while segments and segments[0] in ("< Prev", "Next >"):
        buttons.append(segments.pop(0).lower())
    products = segments[::3] if len(segments) % 3 == 0 else []
    if not all(ASIN.fullmatch(product) for product in products) or (segments and not products):
        products = [segment for segment in segments if ASIN.fullmatch(segment)]
    return ShopPage(False, unique([*buttons, *(product.lower() for product in products)]))


def item_page(body: list[str], tail: list[str], option_names: frozenset[str]) -> ShopPage:
    """Read the segments between `< Prev` and `tail`: options, title, price, rating."""
    prices = [index for index, segment in enumerate(body) if segment.startswith("Price:")]
    if not prices or prices[-1] == 0:
        raise ValueError("an item page without a title and `Price:`")
    options = body[: prices[-1] - 1]
    values = []
    undecided = bool(options) and options[0] not in option_names
    previous_was_name = False
    for index, segment in enumerate(options):
        last = index == len(options) - 1
        is_name = index == 0 or (segment in option_names and not last)
        undecided |= (is_name and (previous_was_name or last)) or (last and segment in option_names)
        if not is_name:
            values.append(segment)
        previous_was_name = is_name
    buttons = ["back to search", "< prev", *(name.lower() for name in tail)]
    return ShopPage(False, unique([*buttons, *values]), tuple(options), undecided)


def learn_option_names(pages: Iterable[str]) -> frozenset[str]:
    """Return the known option names and those that open the options of some page of a file."""
    names = set(OPTION_NAMES)
    for text in pages:
        try:
            page = read_page(text)
        except ValueError:
            continue
        names.update(page.option_segments[:1])
    return frozenset(names)


def unique(texts: list[str]) -> tuple[str, ...]:
    """Drop repetitions, as the evaluator's dictionary of clickables does."""
    return tuple(dict.fromkeys(texts))
