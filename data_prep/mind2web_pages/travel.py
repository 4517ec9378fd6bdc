"""Two websites of the shipped set: flights and routes."""

from data_prep.mind2web_pages.template import (
    Element,
    Site,
    SiteTask,
    Step,
    Values,
    button,
    checkbox,
    choice,
    clicks,
    el,
    entry,
    link,
    rows,
    section,
)


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
        section(
            "From our network",
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
