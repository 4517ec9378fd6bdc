"""Two websites of the shipped set: an outdoor shop and a forum."""

from data_prep.mind2web_pages.template import (
    Element,
    Site,
    SiteTask,
    Step,
    Values,
    button,
    checkbox,
    choice,
    el,
    entry,
    link,
    rows,
    section,
)


def shop_list(values: Values) -> list[Element]:
    return [
        entry(values, "query", "What are you looking for?", "searchbox"),
        button("go", "Go", aria_label="start search"),
        el(
            "aside",
            el("h2", "Filter"),
            checkbox("brand_alder", "Alder"),
            checkbox("brand_kestrel", "Kestrel"),
            checkbox("sale", "On sale"),
        ),
        choice(values, "sort", "Sort", "Featured", "Price: low to high", "Price: high to low", "Rating"),
        rows(
            "product",
            "Quick view",
            ("Kestrel two-person tent", "2.1 kg", "189"),
            ("Alder trail tent", "3.4 kg", "129"),
            ("Alder family dome", "6.8 kg", "249"),
            ("Kestrel storm shelter", "1.6 kg", "279"),
        ),
    ]


def shop_product(values: Values) -> list[Element]:
    return [
        el("h1", "Alder wool socks"),
        el("p", "Warm, light, mended free of charge for ten years."),
        el(
            "div",
            button("grey", "Grey", role="radio"),
            button("moss", "Moss green", role="radio"),
            button("rust", "Rust", role="radio"),
            role="radiogroup",
        ),
        choice(values, "size", "Size", "Choose", "36 to 38", "39 to 41", "42 to 44", "45 to 47"),
        choice(values, "quantity", "Quantity", "1", "2", "3", "4"),
        button("add", "Add to cart", title="add this product to your cart"),
        button("wish", "Add to wish list"),
        section(
            "Often bought together",
            link("gaiters", "Gaiters"),
            link("wax", "Boot wax"),
            link("poles", "Walking poles"),
        ),
    ]


def shop_cart(values: Values) -> list[Element]:
    return [
        el("h1", "Your cart"),
        el("p", "Alder wool socks, moss green, 42 to 44"),
        entry(values, "coupon", "Gift card or coupon"),
        button("apply", "Apply"),
        choice(values, "delivery", "Delivery", "Standard", "Express", "Collect in store"),
        el(
            "div",
            button("checkout", "Go to checkout"),
            link("continue", "Continue shopping"),
            button("remove", "Remove"),
        ),
    ]


GEARSHED = Site(
    "gearshed",
    "Shopping",
    "Speciality",
    ("Tents", "Clothing", "Footwear", "Repairs", "Stores"),
    ("Returns", "Size guide", "Gift cards", "Student discount", "Newsletter"),
    {"list": shop_list, "product": shop_product, "cart": shop_cart},
    (
        SiteTask(
            "Search for tents, keep only the brand Kestrel, and open the cheapest one",
            (
                Step("list", "query", "TYPE", "tent"),
                Step("list", "go"),
                Step("list", "brand_kestrel"),
                Step("list", "sort", "SELECT", "Price: low to high"),
                Step("list", "product0"),
            ),
        ),
        SiteTask(
            "Add two pairs of moss green Alder wool socks in size 42 to 44 to the cart and apply the coupon WARMFEET",
            (
                Step("product", "moss"),
                Step("product", "size", "SELECT", "42 to 44"),
                Step("product", "quantity", "SELECT", "2"),
                Step("product", "add"),
                Step("cart", "coupon", "TYPE", "WARMFEET"),
                Step("cart", "apply"),
            ),
        ),
    ),
)


def forum_board(values: Values) -> list[Element]:
    return [
        el("h1", "Woodworking"),
        button("new", "New topic", aria_label="start a new topic"),
        choice(values, "show", "Show", "Latest", "Most read", "Unanswered", "Pinned"),
        entry(values, "find", "Search this board", "searchbox"),
        rows(
            "topic",
            "Follow",
            ("Which glue for oak outdoors?", "31 replies", "today"),
            ("Show us your first chair", "212 replies", "yesterday"),
            ("Japanese saws for beginners", "17 replies", "Monday"),
            ("Dust, lungs and masks", "58 replies", "Sunday"),
        ),
    ]


def forum_topic(values: Values) -> list[Element]:
    return [
        el("h1", "New topic"),
        entry(values, "subject", "Subject"),
        entry(values, "tags", "Tags"),
        choice(values, "board", "Board", "Woodworking", "Metal", "Garden", "Small talk"),
        el("div", key="body", role="textbox", aria_label="text of your message"),
        el("div", button("post", "Post"), button("preview", "Preview"), button("draft", "Save draft")),
    ]


CAMPFIRE = Site(
    "campfire",
    "Entertainment",
    "Forum",
    ("Boards", "Members", "Calendar", "Messages", "Search"),
    ("House rules", "Moderators", "Donate", "Mobile view", "Feeds"),
    {"board": forum_board, "topic": forum_topic},
    (
        SiteTask(
            "Follow the most read topic about Japanese saws on the woodworking board",
            (
                Step("board", "show", "SELECT", "Most read"),
                Step("board", "find", "TYPE", "japanese saws"),
                Step("board", "topic2_action"),
            ),
        ),
        SiteTask(
            "Start a new topic called Mending a rocking chair with the tag chairs and post it",
            (
                Step("board", "new"),
                Step("topic", "subject", "TYPE", "Mending a rocking chair"),
                Step("topic", "tags", "TYPE", "chairs"),
                Step("topic", "body", "TYPE", "One rocker is cracked. Glue, or a new one?"),
                Step("topic", "post"),
            ),
        ),
    ),
)
