"""WebShop's pages: clickables against an HTML page put through the evaluator's own rule, and against real clicks."""

import json
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from data_prep.agentinstruct.webshop_pages import OPTION_NAMES, learn_option_names, read_page

REQUEST = "<h4>Instruction:<br>i want 3 pairs of socks, and price lower than 20.00 dollars</h4>"
TOP = f"{REQUEST}<button class='btn'>Back to Search</button>"
SEARCH = f"<h2>WebShop</h2>{REQUEST}<input id='search_input'><button class='btn'>Search</button>"
PRODUCT = "<h4><a class='product-link'>{0}</a></h4><h4>{1}</h4><h5>{2}</h5>"
RESULTS = (
    TOP
    + "<h3>Page 2 (Total results: 50)</h3><button class='btn'>&lt; Prev</button><button class='btn'>Next &gt;</button>"
)
RESULTS += PRODUCT.format("B07HP6LVRS", "Socks, 3 pairs", "$15.99") + PRODUCT.format("0123456789", "B000000000", "$9")


def item(**options: list[str]) -> str:
    """Return an item page with the order of parts of WebShop's template."""
    html = TOP + "<button class='btn'>&lt; Prev</button>"
    for name, values in options.items():
        html += f"<h4>{name.replace('_', ' ')}</h4>"
        html += "".join(f"<input type='radio' value='{value}'><label>{value}</label>" for value in values)
    buttons = "".join(f"<button class='btn'>{name}</button>" for name in ("Description", "Features", "Reviews"))
    return (
        html
        + "<h2>Price: the sock</h2><h4>Price: $9.99</h4><h4>Rating: N.A.</h4>"
        + f"{buttons}<button class='btn'>Buy Now</button>"
    )


def evaluators_view(html: str) -> tuple[str, bool, list[str]]:
    """Return text, search bar and clickables by the rule of WebShop's text environment, written anew."""
    page = BeautifulSoup(html, "html.parser")
    text = " [SEP] ".join(str(found).strip() for found in page.find_all(string=True))
    clickables = [node.get_text().lower() for node in page.select(".btn") + page.select(".product-link")]
    clickables += [str(node["value"]) for node in page.select("input[type=radio]")]
    return text, page.find(id="search_input") is not None, list(dict.fromkeys(clickables))


@pytest.mark.parametrize(
    "html",
    [
        SEARCH,
        RESULTS,
        item(),
        item(color=["black", "dark blue"]),
        item(size=["6.5", "7"], fit_type=["men", "women"], color=["black", "7"]),
        TOP + "<button class='btn'>&lt; Prev</button><p>Warm socks. Buy Now</p>",
    ],
)
def test_as_the_evaluator_reads_the_html(html: str) -> None:
    text, search_bar, clickables = evaluators_view(html)
    page = read_page(text)
    assert (page.has_search_bar, list(page.clickables), page.undecided) == (search_bar, clickables, False)
    assert page.available_actions() == str({"has_search_bar": search_bar, "clickables": clickables})


def test_unknown_option_names_are_learned_and_counted() -> None:
    first = evaluators_view(item(grit=["a", "b"], color=["red"]))[0]
    assert read_page(first).undecided
    names = learn_option_names([first, "no page"])
    assert names - OPTION_NAMES == {"grit"}
    swapped = evaluators_view(item(color=["red"], grit=["80", "120"]))[0]
    assert "grit" in read_page(swapped).clickables  # taken for a value: nothing tells it from one
    assert read_page(swapped, names).clickables[-3:] == ("red", "80", "120")
    assert not read_page(first, names).undecided
    assert read_page(first, names).clickables[-3:] == ("a", "b", "red")
    assert read_page(evaluators_view(item(color=["size"]))[0]).undecided
    assert "size" in read_page(evaluators_view(item(color=["size"]))[0]).clickables


@pytest.mark.parametrize(
    "text", ["", "a page", "Instruction: [SEP] x", "Instruction: [SEP] x [SEP] Back to Search [SEP] y"]
)
def test_what_is_no_page(text: str) -> None:
    with pytest.raises(ValueError, match=r"Search|Instruction|Prev"):
        read_page(text)
    hidden = "Instruction: [SEP] x [SEP] Back to Search [SEP] < Prev"
    hidden += " [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now"
    with pytest.raises(ValueError, match="without a title"):
        read_page(hidden)


def test_every_real_click_is_clickable(shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "agenttraj" / "webshop.jsonl").open()]
    turns = [pair for row in rows for pair in zip(row["conversations"][2::2], row["conversations"][3::2], strict=True)]
    names = learn_option_names(human["value"] for human, _ in turns)
    clicks = 0
    for human, gpt in turns:
        page = read_page(human["value"], names)
        assert not page.undecided
        action = re.search(r"[Aa]ction: *\n *((search|click)\[(.+?)])", gpt["value"])
        assert action
        if action[2] == "search":
            assert page.has_search_bar
        else:
            clicks += 1
            assert action[3].lower() in page.clickables
    assert clicks == 1_668
