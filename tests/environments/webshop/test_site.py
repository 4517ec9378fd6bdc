"""Pages and the ways between them, as `SimServer` and the templates of princeton-nlp/WebShop have them.

The expected texts were taken from the original's templates, rendered with Jinja and read with BeautifulSoup.
"""

import pytest

from megatron_agent.environments.task_kind import World
from megatron_agent.environments.webshop.pages import item_page, results_page, search_page, sub_page
from megatron_agent.environments.webshop.product import Product, Review
from megatron_agent.environments.webshop.site import Visit
from tests.environments.webshop.shops import MemoryCatalogue, goal, product

BOTTLE = product(
    asin="B0BOTTLE01",
    title='Bottle <b> & "cap"',
    description="  ",
    bullet_points=(" ", "", "\n", " light "),
    price_tag="$9.99 to $20.0",
    options={"color": ("black", "red | blue", "features"), "lid": ("black", "cork")},
    rating="4.0",
    reviews=(Review("Fine", "4.0", ""), Review("", "1.0", "leaks  a lot")),
)


def test_search_page() -> None:
    page = search_page("i need <it>")
    assert page.text == "WebShop [SEP] Instruction: [SEP] i need <it> [SEP] Search"
    assert page.available_actions == {"has_search_bar": True, "clickables": ["search"]}


def test_results_pages() -> None:
    first = results_page("buy", [BOTTLE], 1, 50)
    assert first.text == (
        "Instruction: [SEP] buy [SEP] Back to Search [SEP] Page 1 (Total results: 50) [SEP] Next > [SEP] "
        'B0BOTTLE01 [SEP] Bottle <b> & "cap" [SEP] $9.99 to $20.0'
    )
    assert first.available_actions["clickables"] == ["back to search", "next >", "b0bottle01"]
    sixth = results_page("buy", [], 6, 50)
    assert sixth.text.endswith("Page 6 (Total results: 50) [SEP] < Prev [SEP] Next >")
    assert sixth.available_actions["clickables"] == ["back to search", "< prev", "next >"]


def test_item_page() -> None:
    page = item_page("buy", BOTTLE)
    assert page.text == (
        "Instruction: [SEP] buy [SEP] Back to Search [SEP] < Prev [SEP] color [SEP] black [SEP] red | blue [SEP] "
        'features [SEP] lid [SEP] black [SEP] cork [SEP] Bottle <b> & "cap" [SEP] Price: $9.99 to $20.0 [SEP] '
        "Rating: 4.0 [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now"
    )
    assert page.available_actions["clickables"] == [
        "back to search", "< prev", "description", "features", "reviews", "buy now", "black", "red | blue", "cork",
    ]  # fmt: skip
    assert page.clickables["black"] == "lid"  # two options have it: the last one's is clicked


def test_sub_pages_and_their_blank_texts() -> None:
    """A blank text stays an empty part, one with a line break vanishes: BeautifulSoup's rule for white space."""
    head = "Instruction: [SEP] buy [SEP] Back to Search [SEP] < Prev"
    assert sub_page("buy", BOTTLE, "Description").text == f"{head} [SEP] "
    assert sub_page("buy", BOTTLE, "Features").text == f"{head} [SEP]  [SEP]  [SEP] light"
    assert (
        sub_page("buy", BOTTLE, "Reviews").text
        == f'{head} [SEP] "Fine" [SEP] 4.0 [SEP] "" [SEP] 1.0 [SEP] leaks  a lot'
    )
    assert sub_page("buy", product(), "Description").text == head
    assert sub_page("buy", BOTTLE, "Reviews").available_actions == {
        "has_search_bar": False,
        "clickables": ["back to search", "< prev"],
    }


@pytest.fixture
def visit() -> Visit:
    others = {f"B{i:09}": product(asin=f"B{i:09}", title=f"Thing {i}") for i in range(23)}
    shop = MemoryCatalogue({**others, "B0BOTTLE01": BOTTLE})
    return Visit(shop, shop, goal())  # type: ignore[arg-type]


def texts(visit: Visit) -> list[str]:
    return visit.page.text.split(" [SEP] ")


def test_a_walk_through_the_shop(visit: Visit) -> None:
    visit.act("search", "Steel Bottle")
    assert texts(visit)[3] == "Page 1 (Total results: 24)"
    for number in (2, 3, 4):
        visit.act("click", "Next >")
        assert texts(visit)[3] == f"Page {number} (Total results: 24)"
    assert texts(visit)[-1] == "Next >"  # there is nothing on the fourth page
    visit.act("click", "< Prev")
    visit.act("click", "b0bottle01")
    assert "Price: $9.99 to $20.0" in texts(visit)
    visit.act("click", "RED | BLUE")
    visit.act("click", "black")
    assert visit.options == {"color": "red | blue", "lid": "black"}
    visit.act("click", "features")  # an option's value too, but the button wins
    assert texts(visit)[-1] == "light"
    visit.act("click", "buy now")  # not on this page
    assert not visit.bought
    visit.act("click", "< prev")
    assert visit.options == {"color": "red | blue", "lid": "black"}
    visit.act("click", "< prev")
    assert texts(visit)[3] == "Page 3 (Total results: 24)"
    assert visit.options == {}
    visit.act("click", "B0BOTTLE01")
    visit.act("click", "Back to Search")
    assert visit.page.has_search_bar
    visit.act("click", "search")
    visit.act("click", "next >")
    assert visit.page == search_page(visit.goal.instruction)


def test_a_search_works_on_every_page(visit: Visit) -> None:
    visit.act("search", "bottle")
    visit.act("click", "B000000003")
    visit.act("search", "cup")
    assert texts(visit)[3] == "Page 1 (Total results: 24)"


def test_buying_ends_the_visit(visit: Visit) -> None:
    visit.act("search", "bottle")
    visit.act("click", "B000000003")
    visit.act("click", "Buy Now")
    assert visit.bought
    assert visit.product is not None
    assert visit.product.asin == "B000000003"


def shown(world: World, *queries: str) -> tuple[str, list[Product]]:
    """Total line and products on the page that some searches lead to, each by one visit."""
    environment = world.make_environment()
    visit = Visit(environment.catalogue, environment.engine, goal())  # type: ignore[attr-defined]
    for query in queries:
        visit.act("search", query)
    asins = [name.upper() for name in visit.page.clickables if len(name) == 10 and name.startswith("b0")]
    return texts(visit)[3], [visit.catalogue.product(asin) for asin in asins]


def test_special_queries(world: World) -> None:
    line, products = shown(world, "<c> beauty")
    assert line == "Page 1 (Total results: 200)"
    assert {product.category for product in products} == {"beauty"}
    line, products = shown(world, "<q> women's sandals")
    assert line == "Page 1 (Total results: 40)"
    assert {product.query for product in products} == {"women's sandals"}
    line, products = shown(world, "<a> rubber sole")
    assert len(products) == 10
    assert all("rubber sole" in product.attributes for product in products)
    assert shown(world, "<r>")[0] == "Page 1 (Total results: 50)"
    assert shown(world, "<r>") == shown(world, "<r>") != shown(world, "<r>", "<r>")
    assert len({product.asin for product in shown(world, "<r>")[1]}) == 10
    for nothing in ("<c>", "<a> no such thing", "<q>", "<c> \ud800", "\ud800 \0 ' \" * ( NEAR", "the of", " "):
        assert shown(world, nothing) == ("Page 1 (Total results: 0)", []), nothing
