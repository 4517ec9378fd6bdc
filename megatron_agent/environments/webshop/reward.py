"""The reward of a purchase: `web_agent_site/engine/goal.py` of princeton-nlp/WebShop (Yao et al., 2022, section 2.2).

r = r_type * (attribute matches + option matches + [price <= bound]) / (attributes + options + 1)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megatron_agent.environments.webshop.goal import WebShopTask, purchase_price
from megatron_agent.environments.webshop.product import Product
from megatron_agent.environments.webshop.title_words import TitleWords

MATCH_ABOVE = 85
_COLORS = """
    alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo
    caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream crystal
    dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather indigo ivory
    ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor
    mushroom mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand
    sapphire seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut
    wheat white wine yellow
    """
COLORS = tuple(_COLORS.split())
"""The colours an option is reduced to, in the order in which they are tried."""


@dataclass(frozen=True)
class PurchaseScore:
    """The reward and its parts; `option` is None when the goal names no options."""

    reward: float
    type: float
    attribute: float
    option: float | None
    price: float
    title: float


def score_purchase(
    product: Product, chosen: Mapping[str, str], goal: WebShopTask, title_words: TitleWords
) -> PurchaseScore:
    """Score buying `product` with the chosen options (name to value)."""
    type_score, title_score = score_type(product, goal, title_words)
    attributes = count_attributes(product, goal.attributes)
    options = count_options(list(chosen.values()), goal.options)
    price_fits = purchase_price(product) <= goal.price_upper
    reward = type_score * (attributes + options + price_fits) / (len(goal.attributes) + len(goal.options) + 1)
    return PurchaseScore(
        reward=reward,
        type=type_score,
        attribute=attributes / len(goal.attributes),
        option=options / len(goal.options) if goal.options else None,
        price=float(price_fits),
        title=title_score,
    )


def score_type(product: Product, goal: WebShopTask, title_words: TitleWords) -> tuple[float, float]:
    """Return r_type and the share of the goal title's words that are in the product's title.

    As in the original a low share outweighs an equal query or category: below 0.1 r_type is 0.1, at 0 it is 0.
    """
    wanted = title_words(goal.name)
    shared = set(wanted) & set(title_words(product.title))
    title_score = len(shared) / len(wanted) if wanted else 0.2
    if title_score == 0.0:
        return 0.0, title_score
    if title_score < 0.1:
        return 0.1, title_score
    same_kind = product.query == goal.query or len(_levels(product) & _levels(goal)) >= 2
    return (1.0 if same_kind or title_score > 0.2 else 0.5), title_score


def count_attributes(product: Product, wanted: Sequence[str]) -> int:
    """Return how many wanted attributes the product has: a similar attribute, or the words in one of its texts."""
    texts = (product.title.lower(), " ".join(product.bullet_points).lower(), product.description.lower())
    return sum(
        any(similarity(attribute, want) > MATCH_ABOVE for attribute in product.attributes)
        or any(want in text for text in texts)
        for want in wanted
    )


def count_options(chosen: Sequence[str], wanted: Sequence[str] | Sequence[tuple[str, str]]) -> int:
    """Return how many wanted options a chosen one matches.

    One chosen option may match several wanted ones. A wanted option may be a pair of name and value: the original
    compares its `repr` then, and a colour counts when it is one of the two.
    """
    have = [normalize_color(value) for value in chosen]
    need = [normalize_color(value) for value in wanted]
    return sum(any(similarity(value, want) > MATCH_ABOVE for value in have) for want in need)


def similarity(have: str, want: str) -> int:
    """Return thefuzz's `token_set_ratio` of two texts, 0 to 100."""
    from thefuzz import fuzz

    return int(fuzz.token_set_ratio(have, want))


def normalize_color(value: str | tuple[str, str]) -> str:
    """Return the first known colour in a value, or the value."""
    return next((color for color in COLORS if color in value), str(value))


def _levels(item: Product | WebShopTask) -> set[str]:
    return {level.strip() for level in item.product_category.split("›")}
