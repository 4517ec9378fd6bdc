"""Two websites of the shipped set: a public library and recipes."""

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
        section(
            "This week",
            link("event_story", "Story time on Tuesday"),
            link("event_chess", "Chess evening"),
        ),
        section(
            "Branches",
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
