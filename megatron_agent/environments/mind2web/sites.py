"""The websites of the shipped set: six of this project's own, as templates, and what people do on them.

A page is a tree of :class:`Element`; elements with a `key` can be acted on. Templates take what was typed and
selected before, so that each step shows the page as the earlier steps left it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Element:
    """An element of a page; a string among its children is a text."""

    tag: str
    children: tuple["Element | str", ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None


@dataclass(frozen=True)
class Step:
    """One action: on which page, on the element with which key, and what."""

    page: str
    key: str
    operation: str = "CLICK"
    value: str = ""


@dataclass(frozen=True)
class SiteTask:
    """A task, and its steps."""

    confirmed_task: str
    steps: tuple[Step, ...]


Values = Mapping[str, str]
Template = Callable[[Values], Sequence[Element]]


@dataclass(frozen=True)
class Site:
    """A website: the links of its header and footer, and the main part of each page."""

    name: str
    domain: str
    subdomain: str
    header: tuple[str, ...]
    footer: tuple[str, ...]
    pages: Mapping[str, Template]
    tasks: tuple[SiteTask, ...]


def el(tag: str, *children: Element | str, key: str | None = None, **attributes: str) -> Element:
    return Element(tag, children, attributes, key)


def button(key: str, text: str, **attributes: str) -> Element:
    return el("button", text, key=key, type="button", **attributes)


def link(key: str, text: str, **attributes: str) -> Element:
    return el("a", el("span", text), key=key, **attributes)


def entry(values: Values, key: str, label: str, role: str = "textbox") -> Element:
    typed = {"input_value": values[key]} if key in values else {}
    return el("div", el("label", label), el("input", key=key, type="text", role=role, placeholder=label, **typed))


def choice(values: Values, key: str, label: str, *options: str) -> Element:
    selected = values.get(key, options[0])
    return el(
        "div",
        el("label", label),
        el(
            "select",
            *(
                el(
                    "option",
                    option,
                    value=option.lower(),
                    **({"option_selected": "true"} if option == selected else {}),
                )
                for option in options
            ),
            key=key,
            name=label.lower(),
        ),
    )


def checkbox(key: str, label: str) -> Element:
    return el("label", el("input", type="checkbox", name=key, input_checked="false"), el("span", label), key=key)


def rows(prefix: str, action: str, *items: tuple[str, ...]) -> Element:
    """A list of results: a title that is a link, details, a button."""
    return el(
        "ul",
        *(
            el(
                "li",
                el("h3", link(f"{prefix}{number}", item[0])),
                *(el("p", detail) for detail in item[1:]),
                button(f"{prefix}{number}_action", action, aria_label=f"{action} {item[0]}"),
            )
            for number, item in enumerate(items)
        ),
        role="list",
    )


def whole_page(site: Site, page: str, values: Values) -> Element:
    return el(
        "html",
        el(
            "body",
            el(
                "header",
                el("a", site.name, key="home", aria_label=f"{site.name} home page"),
                el(
                    "nav",
                    el("ul", *(el("li", link(f"header {name}", name)) for name in site.header)),
                    role="navigation",
                ),
                el("button", el("svg", **{"class": "icon-menu"}), key="menu", type="button", aria_label="open menu"),
            ),
            el("main", *site.pages[page](values), role="main"),
            el(
                "footer",
                el("div", *(el("a", name, key=f"footer {name}") for name in site.footer)),
                el("p", f"All prices and names on {site.name} are made up."),
                role="contentinfo",
            ),
        ),
    )


def clicks(page: str, *keys: str) -> tuple[Step, ...]:
    return tuple(Step(page, key) for key in keys)


# --- skylark: flights -------------------------------------------------------------------------------------------


def flight_search(values: Values) -> list[Element]:
    return [
        el("h1", "Where shall we fly you?"),
        el(
            "form",
            el(
                "div",
                button("return", "Return trip", role="tab"),
                button("one_way", "One way", role="tab"),
                role="tablist",
            ),
            entry(values, "from", "From which city or airport", "combobox"),
            entry(values, "to", "To which city or airport", "combobox"),
            entry(values, "depart", "Departure date"),
            choice(values, "travellers", "Travellers", "1 adult", "2 adults", "3 adults", "Family of four"),
            choice(values, "cabin", "Cabin", "Economy", "Premium economy", "Business"),
            checkbox("flexible", "My dates are flexible"),
            button("search", "Search flights", title="search for flights"),
        ),
        el(
            "section",
            el("h2", "From our network"),
            link("offer_oslo", "Oslo from 79"),
            link("offer_porto", "Porto from 64"),
        ),
    ]


def flight_results(values: Values) -> list[Element]:
    return [
        el("h1", "Outbound flights"),
        choice(values, "sort", "Sort by", "Best", "Lowest price", "Shortest", "Earliest departure"),
        el(
            "div",
            checkbox("nonstop", "Nonstop only"),
            checkbox("bags", "Checked bag included"),
            checkbox("night", "No night flights"),
        ),
        rows(
            "flight",
            "Select",
            ("SK 204 at 06:40", "1 h 55, nonstop", "129"),
            ("SK 216 at 11:15", "4 h 10, one stop", "98"),
            ("SK 231 at 17:05", "1 h 50, nonstop", "164"),
            ("SK 244 at 21:30", "2 h 00, nonstop", "112"),
        ),
    ]


SKYLARK = Site(
    "skylark",
    "Travel",
    "Airlines",
    ("Book", "Check in", "My trips", "Flight status", "Lounge club"),
    ("Contact", "Baggage rules", "Careers", "Press", "Accessibility"),
    {"search": flight_search, "results": flight_results},
    (
        SiteTask(
            "Find the cheapest one way flight from Bergen to Lisbon for two adults on May 14",
            (
                Step("search", "one_way"),
                Step("search", "from", "TYPE", "Bergen"),
                Step("search", "to", "TYPE", "Lisbon"),
                Step("search", "depart", "TYPE", "May 14"),
                Step("search", "travellers", "SELECT", "2 adults"),
                Step("search", "search"),
                Step("results", "sort", "SELECT", "Lowest price"),
            ),
        ),
        SiteTask(
            "Show only nonstop business flights from Graz to Riga and select the one that leaves at 17:05",
            (
                Step("search", "from", "TYPE", "Graz"),
                Step("search", "to", "TYPE", "Riga"),
                Step("search", "cabin", "SELECT", "Business"),
                Step("search", "search"),
                *clicks("results", "nonstop", "flight2_action"),
            ),
        ),
    ),
)


# --- bookend: a public library ----------------------------------------------------------------------------------


def library_search(values: Values) -> list[Element]:
    return [
        el("h1", "Search the catalogue"),
        el(
            "form",
            choice(values, "field", "Search in", "Anything", "Title", "Author", "Subject"),
            entry(values, "query", "Search books, films and music", "searchbox"),
            choice(values, "format", "Format", "All formats", "Book", "Audiobook", "Large print", "DVD"),
            button("search", "Search", title="search the catalogue"),
        ),
        el(
            "section",
            el("h2", "This week"),
            link("event_story", "Story time on Tuesday"),
            link("event_chess", "Chess evening"),
        ),
        el(
            "section",
            el("h2", "Branches"),
            link("branch_mill", "Mill Lane"),
            link("branch_quay", "Quayside"),
            link("branch_hill", "Hill Street"),
        ),
    ]


def library_results(values: Values) -> list[Element]:
    return [
        el("h1", "Results"),
        choice(values, "order", "Order by", "Relevance", "Newest first", "Title", "Author"),
        checkbox("available", "Available now"),
        rows(
            "item",
            "Place hold",
            ("Tides and Lanterns", "Ana Beckett", "Large print, 2021"),
            ("The Lighthouse Keepers", "Ana Beckett", "Book, 2014"),
            ("A Winter of Small Boats", "Ana Beckett", "Audiobook, 2018"),
            ("Harbour Songs", "Ana Beckett", "Book, 2009"),
        ),
        el("nav", link("page2", "2"), link("page3", "3"), link("next", "Next page"), aria_label="pages"),
    ]


def library_hold(values: Values) -> list[Element]:
    return [
        el("h1", "Place a hold"),
        entry(values, "card", "Library card number"),
        entry(values, "pin", "PIN"),
        choice(values, "pickup", "Pick-up branch", "Mill Lane", "Quayside", "Hill Street", "Mobile library"),
        choice(values, "notice", "Tell me by", "E-mail", "Text message", "Letter"),
        el("div", button("confirm", "Confirm hold"), button("cancel", "Cancel")),
    ]


BOOKEND = Site(
    "bookend",
    "Info",
    "Library",
    ("Catalogue", "E-books", "Events", "My account", "Opening hours"),
    ("About the library", "Donate", "Volunteer", "Privacy", "Terms of use"),
    {"search": library_search, "results": library_results, "hold": library_hold},
    (
        SiteTask(
            "Place a hold on the large print book by Ana Beckett, to be picked up at Quayside",
            (
                Step("search", "field", "SELECT", "Author"),
                Step("search", "query", "TYPE", "Ana Beckett"),
                Step("search", "search"),
                Step("results", "item0_action"),
                Step("hold", "pickup", "SELECT", "Quayside"),
                Step("hold", "confirm"),
            ),
        ),
        SiteTask(
            "Find audiobooks about sailing that are available now, newest first",
            (
                Step("search", "query", "TYPE", "sailing"),
                Step("search", "format", "SELECT", "Audiobook"),
                Step("search", "search"),
                Step("results", "available"),
                Step("results", "order", "SELECT", "Newest first"),
            ),
        ),
    ),
)


# --- gearshed: an outdoor shop ----------------------------------------------------------------------------------


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
        el(
            "section",
            el("h2", "Often bought together"),
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


# --- campfire: a forum ------------------------------------------------------------------------------------------


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


# --- wayfinder: maps and routes ---------------------------------------------------------------------------------


def route_plan(values: Values) -> list[Element]:
    return [
        el("h1", "Plan a route"),
        entry(values, "start", "Start", "combobox"),
        entry(values, "end", "Destination", "combobox"),
        el(
            "div",
            *(button(mode, mode.capitalize(), role="tab") for mode in ("car", "bus", "bicycle", "walk")),
            role="tablist",
        ),
        choice(values, "leave", "Leave", "Now", "At 8:00", "At 12:00", "At 18:00"),
        checkbox("no_tolls", "Avoid toll roads"),
        checkbox("no_ferries", "Avoid ferries"),
        button("route", "Show route"),
        button("swap", "Swap start and destination"),
    ]


def route_result(values: Values) -> list[Element]:
    return [
        el("h1", "Three routes"),
        rows(
            "route",
            "Start",
            ("Along the river", "14 km, 52 min"),
            ("Over the pass", "11 km, 1 h 10"),
            ("By the old railway", "16 km, 55 min"),
        ),
        el(
            "div",
            button("zoom_in", "Zoom in", title="zoom in"),
            button("zoom_out", "Zoom out", title="zoom out"),
            button("locate", "My position"),
        ),
        el("div", button("share", "Share"), button("print", "Print"), button("save", "Save route")),
        choice(values, "units", "Units", "Kilometres", "Miles"),
    ]


WAYFINDER = Site(
    "wayfinder",
    "Travel",
    "Ground",
    ("Map", "Routes", "Live traffic", "Saved places", "Timetables"),
    ("Report a mistake", "Developers", "Licence", "Help", "Language"),
    {"plan": route_plan, "result": route_result},
    (
        SiteTask(
            "Plan a bicycle route from Ambleside to Keswick without ferries and save the old railway one, in miles",
            (
                Step("plan", "start", "TYPE", "Ambleside"),
                Step("plan", "end", "TYPE", "Keswick"),
                Step("plan", "bicycle"),
                Step("plan", "no_ferries"),
                Step("plan", "route"),
                Step("result", "units", "SELECT", "Miles"),
                Step("result", "route2"),
                Step("result", "save"),
            ),
        ),
    ),
)


# --- pantry: recipes --------------------------------------------------------------------------------------------


def recipe_list(values: Values) -> list[Element]:
    return [
        entry(values, "query", "Find a recipe", "searchbox"),
        button("find", "Find"),
        choice(values, "diet", "Diet", "Any", "Vegetarian", "Vegan", "Gluten free"),
        choice(values, "time", "Time", "Any", "Under 20 minutes", "Under 45 minutes"),
        rows(
            "recipe",
            "Save",
            ("Lentil soup with lemon", "35 minutes", "4.8 of 5"),
            ("Red lentil curry", "25 minutes", "4.6 of 5"),
            ("Lentil and walnut salad", "15 minutes", "4.1 of 5"),
            ("Shepherd's pie with lentils", "1 hour", "4.4 of 5"),
        ),
    ]


def recipe_page(values: Values) -> list[Element]:
    return [
        el("h1", "Red lentil curry"),
        el("p", "Spiced oil goes in last; the pot does the rest."),
        choice(values, "servings", "Servings", "2", "4", "6", "8"),
        el("ul", *(el("li", text) for text in ("250 g red lentils", "1 onion", "2 tsp cumin", "400 ml coconut milk"))),
        el(
            "div",
            button("shopping", "Add to shopping list"),
            button("collect", "Save to collection"),
            button("print", "Print recipe"),
        ),
        entry(values, "note", "Add a private note"),
        el(
            "div",
            *(
                button(f"star{stars}", f"{stars} of 5", role="radio", aria_label=f"rate {stars} stars")
                for stars in range(1, 6)
            ),
            role="radiogroup",
        ),
    ]


PANTRY = Site(
    "pantry",
    "Info",
    "Cooking",
    ("Recipes", "Meal plan", "Techniques", "Shopping list", "Sign in"),
    ("Write for us", "Conversions", "Cookbooks", "Advertise", "Imprint"),
    {"list": recipe_list, "recipe": recipe_page},
    (
        SiteTask(
            "Find a vegan lentil recipe that takes under 45 minutes and open the curry",
            (
                Step("list", "query", "TYPE", "lentils"),
                Step("list", "diet", "SELECT", "Vegan"),
                Step("list", "time", "SELECT", "Under 45 minutes"),
                Step("list", "find"),
                Step("list", "recipe1"),
            ),
        ),
        SiteTask(
            "Set the red lentil curry to 6 servings, add it to the shopping list and rate it with five stars",
            (
                Step("recipe", "servings", "SELECT", "6"),
                Step("recipe", "shopping"),
                Step("recipe", "star5"),
            ),
        ),
    ),
)

SITES = (SKYLARK, BOOKEND, GEARSHED, CAMPFIRE, WAYFINDER, PANTRY)
