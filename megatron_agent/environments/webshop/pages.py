"""The shop's pages as the text environment sees them: visible texts joined by ` [SEP] `, and what can be clicked.

The original renders Jinja templates and reads them back with BeautifulSoup (`web_agent_site/templates`,
`WebAgentTextEnv` of princeton-nlp/WebShop). Here the same texts and clickables are written down at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from megatron_agent.environments.webshop.product import Product

BACK_TO_SEARCH, NEXT_PAGE, PREVIOUS_PAGE, BUY_NOW = "Back to Search", "Next >", "< Prev", "Buy Now"
SUB_PAGES = ("Description", "Features", "Reviews")
SEARCH_BUTTON = "Search"
SEPARATOR = " [SEP] "
_HTML_BLANKS = " \n\t\f\r"


@dataclass(frozen=True)
class Page:
    """What one page shows and offers. `clickables` maps what is clicked (lower case) to the option it belongs to."""

    text: str
    has_search_bar: bool = False
    clickables: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def available_actions(self) -> dict[str, bool | list[str]]:
        """The dictionary whose `repr` the model sees."""
        return {"has_search_bar": self.has_search_bar, "clickables": list(self.clickables)}


def search_page(instruction: str) -> Page:
    """Return the start page."""
    texts = ["WebShop", "Instruction:", instruction, SEARCH_BUTTON]
    return Page(_join(texts), has_search_bar=True, clickables=_clickables([SEARCH_BUTTON]))


def results_page(instruction: str, products: Sequence[Product], number: int, total: int) -> Page:
    """Return a page of search results. The first has no way back, the last and those behind it have a next one."""
    turns = [NEXT_PAGE] if number == 1 else [PREVIOUS_PAGE, NEXT_PAGE]
    texts = ["Instruction:", instruction, BACK_TO_SEARCH, f"Page {number} (Total results: {total})", *turns]
    for product in products:
        texts += [product.asin, product.title, product.price_tag]
    return Page(_join(texts), clickables=_clickables([BACK_TO_SEARCH, *turns, *(product.asin for product in products)]))


def item_page(instruction: str, product: Product) -> Page:
    """Return a product's page. It looks the same whatever options were chosen."""
    texts = ["Instruction:", instruction, BACK_TO_SEARCH, PREVIOUS_PAGE]
    for name, values in product.options.items():
        texts += [name, *values]
    texts += [product.title, f"Price: {product.price_tag}", f"Rating: {product.rating}", *SUB_PAGES, BUY_NOW]
    clickables = _clickables([BACK_TO_SEARCH, PREVIOUS_PAGE, *SUB_PAGES, BUY_NOW])
    for name, values in product.options.items():
        clickables |= dict.fromkeys(values, name)  # a value of two options belongs to the last
    return Page(_join(texts), clickables=clickables)


def sub_page(instruction: str, product: Product, name: str) -> Page:
    """Return a product's Description, Features or Reviews."""
    texts = ["Instruction:", instruction, BACK_TO_SEARCH, PREVIOUS_PAGE]
    if name == "Description":
        texts.append(product.description)
    elif name == "Features":
        texts += [f" {bullet}" for bullet in product.bullet_points]
    else:
        for review in product.reviews:
            texts += [f'"{review.title}"', review.score, review.body]
    return Page(_join(texts), clickables=_clickables([BACK_TO_SEARCH, PREVIOUS_PAGE]))


def _clickables(names: Sequence[str]) -> dict[str, str | None]:
    return dict.fromkeys(name.lower() for name in names)


def _join(texts: Sequence[str]) -> str:
    """Join texts as BeautifulSoup's text nodes come out: blank ones with a line break vanish, empty ones too."""
    shown = [text for text in texts if text and ("\n" not in text or text.strip(_HTML_BLANKS))]
    return SEPARATOR.join(text.strip() for text in shown)
