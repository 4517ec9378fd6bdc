"""How the websites of the shipped set are written down: elements, steps, and the parts that pages are made of.

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


def section(heading: str, *children: Element) -> Element:
    return el("section", el("h2", heading), *children)


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
