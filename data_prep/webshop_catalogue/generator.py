"""Makes the shop: the same seed gives the same files, in WebShop's layout."""

import random
from collections.abc import Sequence
from typing import Any

from data_prep.webshop_catalogue.families import FAMILIES, Family

PRODUCTS_A_FAMILY = 40
GOALS_A_FAMILY = 8
SEED = 2022
BRAND_STARTS = ("Al", "Bren", "Cor", "Dal", "Ever", "Fen", "Gal", "Hol", "Kel", "Lum", "Mer", "Nor", "Or", "Pel", "Tor")
BRAND_ENDS = ("bridge", "dane", "ford", "haven", "lo", "mont", "ora", "quill", "ridge", "sen", "ton", "vale", "wick")
OPENINGS = (
    "i am looking for a {attributes} {noun}{options}",
    "i need a {noun} that is {attributes}{options}",
    "find me a {attributes} {noun}{options}",
    "i would like to buy a {noun}, {attributes}{options}.",
    "please show me a {attributes} {noun}{options}",
    "i want a {noun} for {use} which is {attributes}{options}",
)
REVIEW_TITLES = ("Just right", "Good value", "Not what I hoped", "Would buy again", "Solid, with one flaw", "A gift")
REVIEW_BODIES = (
    "I have used the {noun} for {use} for two months and it held up well.",
    "The {noun} came quickly. The color is close to the picture.",
    "It is {attribute} as promised, but smaller than I thought.",
    "My third one. Best for {use}.",
    "Sent it back: not as {attribute} as the page says.",
)


def generate_shop(seed: int = SEED) -> dict[str, Any]:
    """Return the contents of items_shuffle, items_ins_v2, items_human_ins and reviews, by those names.

    Every instruction is written from one product: its attributes and option values are the product's own, so that
    buying it with these options is worth 1.0. Other products of the kind share some of them.
    """
    chance = random.Random(seed)
    products: list[dict[str, Any]] = []
    attributes: dict[str, Any] = {}
    instructions: dict[str, Any] = {}
    reviews: list[dict[str, Any]] = []
    titles: set[str] = set()
    for number, family in enumerate(FAMILIES):
        with_goal = set(chance.sample(range(PRODUCTS_A_FAMILY), GOALS_A_FAMILY))
        for item in range(PRODUCTS_A_FAMILY):
            asin = f"B0{_base36(chance.randrange(36**4), 4)}{_base36(number * PRODUCTS_A_FAMILY + item, 4)}"
            has = chance.sample(family.attributes, chance.randint(3, 5))
            product = _product(asin, family, has, titles, chance)
            products.append(product)
            attributes[asin] = {"attributes": has}
            reviews.append(_reviews(asin, family, has, chance))
            if item in with_goal:
                instructions[asin] = [_instruction(product, family, has, chance)]
    chance.shuffle(products)
    return {
        "items_shuffle": products,
        "items_ins_v2": attributes,
        "items_human_ins": instructions,
        "reviews": reviews,
    }


def _product(
    asin: str, family: Family, attributes: Sequence[str], titles: set[str], chance: random.Random
) -> dict[str, Any]:
    """Return a record of items_shuffle.json; its title is new to `titles`."""
    noun = chance.choice(family.nouns)
    while True:
        brand = chance.choice(BRAND_STARTS) + chance.choice(BRAND_ENDS)
        named = chance.sample(attributes, 2)
        title = f"{brand} {noun}, {named[0].title()} and {named[1].title()}, for {chance.choice(family.uses)}"
        if title not in titles:
            titles.add(title)
            break
    options = {
        name: [{"value": value, "image": None} for value in _some(values, chance)]
        for name, values in family.options.items()
    }
    return {
        "asin": asin,
        "name": title,
        "category": family.category,
        "query": family.query,
        "product_category": family.product_category,
        "pricing": _pricing(family.prices, chance),
        "full_description": (
            f"The {brand} {noun.lower()} is made for {_listed(family.uses)}. "
            f"It is {_listed(attributes)}. {brand} answers questions within two days."
        ),
        "small_description": [
            f"{attribute.capitalize()}: {chance.choice(('chosen for', 'tested in', 'made for'))} "
            f"{chance.choice(family.uses)}."
            for attribute in attributes
        ],
        "customization_options": options,
        "images": [f"{asin}.jpg"],
    }


def _instruction(
    product: dict[str, Any], family: Family, attributes: Sequence[str], chance: random.Random
) -> dict[str, Any]:
    """Return a record of items_human_ins.json: two attributes, and a value of one option or of each."""
    wanted = chance.sample(list(attributes), 2)
    names = list(product["customization_options"])
    named = chance.sample(names, chance.randint(1, len(names)))
    chosen = {name: chance.choice(product["customization_options"][name])["value"] for name in named}
    noun = next(noun for noun in family.nouns if f" {noun}," in product["name"])
    text = chance.choice(OPENINGS).format(
        attributes=" and ".join(wanted),
        noun=noun.lower(),
        use=chance.choice(family.uses),
        options="".join(f", {name}: {value}" for name, value in chosen.items()),
    )
    return {
        "asin": product["asin"],
        "instruction": text,
        "instruction_attributes": wanted,
        "instruction_options": list(chosen.values()),
    }


def _reviews(asin: str, family: Family, attributes: Sequence[str], chance: random.Random) -> dict[str, Any]:
    """Return a record of reviews.json with up to three reviews."""
    reviews = [
        {
            "title": chance.choice(REVIEW_TITLES),
            "stars": f"{chance.randint(1, 5)}.0",
            "review": chance.choice(REVIEW_BODIES).format(
                noun=chance.choice(family.nouns).lower(),
                use=chance.choice(family.uses),
                attribute=chance.choice(attributes),
            ),
        }
        for _ in range(chance.randint(0, 3))
    ]
    scores = [float(review["stars"]) for review in reviews]
    return {
        "asin": asin,
        "reviews": reviews,
        "average_rating": f"{sum(scores) / len(scores):.1f}" if scores else "N.A.",
    }


def _pricing(bounds: tuple[float, float], chance: random.Random) -> str | None:
    """Return a price, two for one product in four, none for one in twenty."""
    low = round(chance.uniform(*bounds), 2)
    kind = chance.random()
    if kind < 0.05:
        return None
    if kind < 0.3:
        return f"${low}${round(low * chance.uniform(1.1, 1.8), 2)}"
    return f"${low}"


def _some(values: Sequence[str], chance: random.Random) -> list[str]:
    """Return some of the values in their order, at least two."""
    kept = set(chance.sample(range(len(values)), chance.randint(2, min(8, len(values)))))
    return [value for index, value in enumerate(values) if index in kept]


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _base36(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, 36)
        text = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit] + text
    return text
