"""Pages as the model reads them, against AgentBench's prompts, real choices of Mind2Web, and sums by hand."""

import json
import random
import re
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest

from megatron_agent.environments.mind2web.page import ATTRIBUTES, Dom, Page
from megatron_agent.environments.mind2web.question import ask
from megatron_agent.errors import UserError

TOKEN = re.compile(r"<(?P<close>/)?(?P<tag>[a-z][a-z0-9]*)(?: id=(?P<id>\d+))?(?: (?P<words>[^<>]*?))? ?(?P<end>/)?>")


def restore(shown: str) -> str | None:
    """Turn what a model was shown back into a page: words become attributes, numbers ids. None if it was cut off."""
    parts: list[str] = []
    open_tags: list[str] = []
    position = 0
    for token in TOKEN.finditer(shown):
        if text := shown[position : token.start()].strip():
            parts.append(f"<text>{escape(text)}</text> ")
        position = token.end()
        if token["close"]:
            if not open_tags or open_tags.pop() != token["tag"]:
                return None
            parts.append(f"</{token['tag']}> ")
            continue
        words = (token["words"] or "").split()
        attributes = "".join(
            f" {name}={quoteattr(' '.join(words[5 * index : 5 * index + 5]))}"
            for index, name in enumerate(ATTRIBUTES)
            if words[5 * index :]
        )
        if token["end"] and not words:
            attributes = ' href="without words"'  # or it would not have been shown
        node_id = f' backend_node_id="{token["id"]}"' if token["id"] else f' backend_node_id="n{len(parts)}"'
        parts.append(f"<{token['tag']}{node_id}{attributes}> ")
        if token["end"]:
            parts[-1] = parts[-1].replace("> ", "/> ")
        else:
            open_tags.append(token["tag"])
    if open_tags or shown[position:].strip():
        return None
    return "".join(parts).strip()


@pytest.mark.parametrize("name", ["llm_prompt.json", "llm_prompt_cot.json"])
def test_questions_of_agentbenchs_prompts_come_out_as_they_stand_there(shared_data: Path, name: str) -> None:
    messages = json.loads((shared_data / "agentbench" / "mind2web" / name).read_text())
    questions = [message["content"] for message in messages if message["role"] == "user" and message["content"]]
    assert len(questions) == 3
    for question in questions:
        shown = question.split("'''")[1].strip()
        options = re.findall(r"^[B-F]\. (.*)$", question, re.MULTILINE)
        html = restore(shown)
        assert html is not None
        page, choices = Dom(html).show([str(number) for number in range(len(options))])
        assert page == shown
        assert [choice.text for choice in choices] == options
        task = re.findall(r"^Task: (.*)$", question, re.MULTILINE)[-1]
        previous = question.split("Previous actions:\n")[-1].split("\nWhat should be the next action?")[0]
        assert ask(page, task, [] if previous == "None" else previous.split("\n"), choices).strip() == question.strip()


def test_choices_of_real_pages_come_out_as_mind2web_wrote_them(shared_data: Path) -> None:
    rows = json.loads((shared_data / "mind2web" / "sample_labeled_all.json").read_text())
    whole = 0
    for row in rows:
        for choice in re.findall(r"^[A-Q]\. (<.*)$", row["prompt"][2], re.MULTILINE):
            html = restore(choice)
            if html is None:
                continue
            whole += 1
            ids = list(dict.fromkeys(re.findall(r" id=(\d+)", choice)))
            _, choices = Dom(f'<html backend_node_id="root">{html}</html>').show(ids)
            numbered_from_0 = re.sub(r" id=(\d+)", lambda match, ids=ids: f" id={ids.index(match[1])}", choice)
            assert choices[0].text == numbered_from_0
    assert whole > 1000


SHOP = """\
<html backend_node_id="1"> <body backend_node_id="2">
  <div backend_node_id="3"> <div backend_node_id="4"> <a backend_node_id="5" href="/"/> </div> </div>
  <div backend_node_id="6"> <div backend_node_id="7">
    <button backend_node_id="8" type="button" aria_label="Add  to CART"> <text backend_node_id="9">Add
      it</text> </button> </div> <p backend_node_id="10"> <text>Say "yes" &amp;amp; a &lt; b</text> </p> </div>
  <input backend_node_id="11" type="hidden" role="presentation" name="a verylongwordofmany b c d e f" value="a"
    title="https://x.example/y"/>
</body> </html>"""


def test_a_page_by_hand() -> None:
    page, choices = Dom(SHOP).show(["8", "11"])
    # div 3 is a sibling of input 11 and says nothing: gone. div 6 and 7 have one child left, which takes their place.
    assert page == (
        "<html> <body> <button id=0 button add to cart> Add it </button> <input id=1 a b c d e a /> </body> </html>"
    )
    assert [choice.node_id for choice in choices] == ["8", "11"]
    assert choices[0].text == "<button id=0 button add to cart> Add it </button>"


def test_texts_lose_their_quotes_and_their_entities() -> None:
    assert Dom(SHOP).show(["10"])[1][0].text == "<p id=0> Say yes &amp; a < b </p>"
    text = "&amp;amp; &amp;lt;b&amp;gt; &amp;rsquo;"
    html = f'<html backend_node_id="r"><p backend_node_id="c"><text>{text}</text></p></html>'
    assert Dom(html).show(["c"])[1][0].text == "<p id=0>&amp; <b> '</p>"


def test_the_order_of_candidates_does_not_matter() -> None:
    dom = Dom(SHOP)
    assert dom.show(["11", "8", "10"]) == dom.show(["8", "10", "11"])


def test_what_is_kept_around_a_candidate() -> None:
    """Fifty descendants, six levels down; three siblings on either side; ancestors."""
    many = "".join(f'<i backend_node_id="d{n}" name="d{n}"/>' for n in range(60))
    siblings = "".join(f'<b backend_node_id="s{n}" name="s{n}"/>' for n in range(5))
    more = "".join(f'<b backend_node_id="t{n}" name="t{n}"/>' for n in range(5))
    html = f'<html backend_node_id="r">{siblings}<text>t</text><div backend_node_id="c">{many}</div>{more}</html>'
    page, choices = Dom(html).show(["c"])
    assert re.findall(r"<i (\w+)", page) == [f"d{n}" for n in range(50)]
    assert re.findall(r"<b (\w+)", page) == ["s2", "s3", "s4", "t0", "t1", "t2"]
    assert choices[0].text == "<div id=0><i d0 /><i d1 /><i d2 /><i d3 /><i"
    assert page.startswith("<html><b s2 />")

    deep = "".join(f'<u backend_node_id="u{n}" name="u{n}">' for n in range(9)) + "</u>" * 9
    page, _ = Dom(f'<html backend_node_id="r"><div backend_node_id="c">{deep}</div></html>').show(["c"])
    assert re.findall(r"<u (\w+)", page) == [f"u{n}" for n in range(6)]


def test_attribute_words() -> None:
    long = "fourteenletter fifteenletters1"
    html = f"""<html backend_node_id="r"><a backend_node_id="c" class="k" value="{long}" role="Tab" type="tab"
        title="one two three four five six" label="NULL" alt="http://x" name="one two three four five"
        placeholder="&quot;q&quot; &amp; &lt;b&gt;" href="unseen"/></html>"""
    assert Dom(html).show(["c"])[1][0].text == '<a id=0 tab one two three four five fourteenletter "q"'
    assert Dom(html).show(["c"])[0] == (
        '<html><a id=0 tab one two three four five fourteenletter "q" & <b> k /></html>'
    )


def test_long_texts_are_cut_after_twenty_words() -> None:
    words = " ".join(f"w{n}" for n in range(30))
    page, _ = Dom(f'<html backend_node_id="r"><p backend_node_id="c"><text>{words}</text></p></html>').show(["c"])
    assert page == "<html><p id=0>" + " ".join(f"w{n}" for n in range(20)) + "</p></html>"


def random_page(generator: random.Random) -> tuple[str, list[str]]:
    ids: list[str] = []

    def element(depth: int) -> str:
        ids.append(str(len(ids)))
        start = f'<{generator.choice(["div", "a", "li", "svg"])} backend_node_id="{ids[-1]}"'
        if generator.random() < 0.4:
            start += f' title="word{generator.randint(0, 9)}"'
        children = [element(depth + 1) for _ in range(generator.randint(0, 4) if depth < 5 else 0)]
        if generator.random() < 0.3:
            children.insert(0, "<text>some text</text>")
        return f"{start}> {' '.join(children)} </{start[1:].split()[0]}>"

    return element(0), ids


def test_random_pages_show_every_candidate_once() -> None:
    for seed in range(60):
        html, ids = random_page(random.Random(seed))
        candidates = random.Random(seed).sample(ids, min(5, len(ids)))
        dom = Dom(html)
        page, choices = dom.show(candidates)
        assert sorted(choice.node_id for choice in choices) == sorted(candidates)
        assert [choice.node_id for choice in choices] == dom.in_document_order(candidates)
        assert [choice.node_id for choice in choices] == sorted(candidates, key=int)
        assert re.findall(r" id=(\d+)", page) == [str(number) for number in range(len(choices))]
        for number, choice in enumerate(choices):
            assert f" id={number}" in choice.text.split(">")[0]
            assert choice.text in page
            assert len(choice.text.split()) <= 10
        assert dom.show(candidates) == (page, choices)  # asking changes nothing


def test_a_page_is_held_small_and_shown_as_its_hash() -> None:
    html = SHOP * 50
    page = Page.from_html(html)
    assert page.html == html
    assert len(page.compressed) < len(html) / 10
    assert repr(page) == f"Page(sha256='{page.sha256}')"


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ("<html><p></html>", "not well-formed"),
        ("", "not well-formed"),
        ("<html>&nbsp;</html>", "not well-formed"),
        ('<!DOCTYPE html [<!ENTITY x SYSTEM "file:///etc/passwd">]><html>&x;</html>', "holds an entity"),
        ('<?xml version="1.0" encoding="utf-8"?><html/>', "not well-formed"),
    ],
)
def test_pages_that_cannot_be_read(html: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        Dom(html, "test.json item 3 action 1")
    assert words in str(caught.value)
    assert str(caught.value).startswith('test.json item 3 action 1: "cleaned_html" ')


def test_candidates_that_cannot_be_shown() -> None:
    dom = Dom(SHOP)
    dom.check_candidate("8", "here")
    for node_id in ("99", "9"):  # not there; a text
        with pytest.raises(UserError, match=f"here: candidate '{node_id}' is no element"):
            dom.check_candidate(node_id, "here")
    deep = "<a>" * 300 + '<b backend_node_id="x"/>' + "</a>" * 300
    with pytest.raises(UserError, match=r"deeper than 256|not well-formed"):  # older libxml2 refuses the page itself
        Dom(deep, "here").check_candidate("x", "here")
