"""One buyer's visit to the shop: which page an action leads to, as `SimServer` and `SimBrowser` of WebShop decide."""

import random
from dataclasses import dataclass, field

from megatron_agent.environments.webshop.catalogue import Catalogue
from megatron_agent.environments.webshop.goal import WebShopTask
from megatron_agent.environments.webshop.pages import (
    BACK_TO_SEARCH,
    BUY_NOW,
    NEXT_PAGE,
    PREVIOUS_PAGE,
    SEARCH_BUTTON,
    SUB_PAGES,
    Page,
    item_page,
    results_page,
    search_page,
    sub_page,
)
from megatron_agent.environments.webshop.product import Product
from megatron_agent.environments.webshop.search import SearchEngine

RESULTS = 50
RESULTS_A_PAGE = 10
LISTINGS = {"<a>": "attribute", "<c>": "category", "<q>": "query"}
"""Search words that list products instead of searching; `<r>` draws some by chance."""
_SUB_PAGES = {name.lower(): name for name in SUB_PAGES}


@dataclass
class Visit:
    """Where one buyer is, and the options chosen for the product on show.

    Nothing chosen survives a look at the search results. `bought` is set by Buy Now, and ends the visit.
    """

    catalogue: Catalogue
    engine: SearchEngine
    goal: WebShopTask
    keywords: list[str] = field(default_factory=list)
    number: int = 1
    product: Product | None = None
    options: dict[str, str] = field(default_factory=dict)
    bought: bool = False
    random_searches: int = 0
    on_sub_page: bool = False

    def __post_init__(self) -> None:
        self.page: Page = search_page(self.goal.instruction)

    def act(self, name: str, argument: str) -> None:
        """Carry out a search or a click; anything that is not possible here changes nothing.

        A search works on every page, with or without a search bar. Arguments are put in lower case.
        """
        argument = argument.lower()
        if name == "search":
            self._search(argument.split(" "), 1)
        elif name == "click" and argument in self.page.clickables and argument != SEARCH_BUTTON.lower():
            self._click(argument)

    def _click(self, name: str) -> None:
        instruction = self.goal.instruction
        if name == BUY_NOW.lower():
            self.bought = True
        elif name == BACK_TO_SEARCH.lower():
            self.keywords, self.number, self.product, self.options = [], 1, None, {}
            self.page = search_page(instruction)
        elif self.product is None and name in (NEXT_PAGE.lower(), PREVIOUS_PAGE.lower()):
            self._search(self.keywords, self.number + (1 if name == NEXT_PAGE.lower() else -1))
        elif self.product is None:
            self.product = self.catalogue.product(name.upper())
            self._show_item()
        elif name == PREVIOUS_PAGE.lower() and not self.on_sub_page:
            self._search(self.keywords, self.number)
        elif name in _SUB_PAGES:
            self.page, self.on_sub_page = sub_page(instruction, self.product, _SUB_PAGES[name]), True
        else:
            option = self.page.clickables[name]
            if option is not None:
                self.options[option] = name
            self._show_item()

    def _show_item(self) -> None:
        assert self.product is not None
        self.page, self.on_sub_page = item_page(self.goal.instruction, self.product), False

    def _search(self, keywords: list[str], number: int) -> None:
        """Show a page of the results. Every page searches anew, so `<r>` draws others each time."""
        offset = (number - 1) * RESULTS_A_PAGE
        rest = " ".join(keywords[1:]).strip()
        if keywords[0] == "<r>":
            total, asins = self._draw(offset)
        elif keywords[0] in LISTINGS:
            if keywords[0] == "<c>":
                rest = keywords[1].strip() if len(keywords) > 1 else ""
            total, asins = self.catalogue.listing(LISTINGS[keywords[0]], rest, offset, RESULTS_A_PAGE)
        else:
            found = self.engine.search(" ".join(keywords), RESULTS)
            total, asins = len(found), found[offset : offset + RESULTS_A_PAGE]
        products = [self.catalogue.product(asin) for asin in asins]
        self.keywords, self.number, self.product, self.options = keywords, number, None, {}
        self.page, self.on_sub_page = results_page(self.goal.instruction, products, number, total), False

    def _draw(self, offset: int) -> tuple[int, list[str]]:
        """Return the number and one page of products drawn by chance, the same in every run of a task."""
        self.random_searches += 1
        chance = random.Random(f"{self.goal.id} {self.random_searches}")
        drawn = self.catalogue.draw(chance, RESULTS)
        return len(drawn), drawn[offset : offset + RESULTS_A_PAGE]
