"""The page of inspect_dataset in a real browser: Debian's chromium and chromium-driver through selenium."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.build_indexed_dataset import build_indexed_dataset
from data_prep.inspect_dataset import inspect_conversations, inspect_rows
from megatron_agent.dataset.mixture import load_config
from megatron_agent.dataset.rows import PackedRows
from tests.browser import OpenPage
from tests.data_prep.conftest import record

HOSTILE = (
    "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"> \0\x1b[2J\u202eX"
)


@pytest.fixture
def build(write_jsonl: Callable[..., Path], sentencepiece_file: Path, tmp_path: Path) -> Callable[..., str]:
    """Return a function that builds a dataset of conversations under a name."""

    def build(name: str, *records: dict[str, Any]) -> str:
        build_indexed_dataset([write_jsonl(f"{name}.jsonl", *records)], sentencepiece_file, "llama-2", tmp_path / name)
        return str(tmp_path / name)

    return build


class Page(OpenPage):
    """What a user sees and does."""

    def all(self, selector: str) -> list[Any]:
        """All elements of a CSS selector."""
        return self.driver.find_elements("css selector", selector)

    def press(self, keys: str) -> None:
        """Press keys outside of every field."""
        self.find("body").send_keys(keys)

    def point_at(self, node: Any, x: float = 0.0, y: float = 0.0) -> None:
        """Move the mouse over a node, off its centre by these pixels."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).move_to_element_with_offset(node, x, y).perform()


def test_search_and_moving_about(browser: Any, build: Callable[..., str], tmp_path: Path) -> None:
    agent = build("agent", *(record(f"a{i}", f"task number {i}", f"Done {i}. Done again.") for i in range(12)))
    general = build("general", record("g", HOSTILE, HOSTILE), record("h", "(regular) [expression]", "done. 🎉 end"))
    file = tmp_path / "page.html"
    inspect_conversations([agent, general], html=file)
    page = Page(browser, file)
    assert page.title() == "agent, conversation 0"
    page.find("#next").click()
    page.press("j")
    assert page.title() == "agent, conversation 2"
    page.press("k")
    assert page.title() == "agent, conversation 1"
    page.find("#previous").click()
    assert page.title() == "agent, conversation 0"
    assert not page.find("#previous").is_enabled()
    # colours: the answer and its </s>, nothing else
    trained = "".join(node.get_attribute("textContent") for node in page.all("#tokens i.trained"))
    assert trained == " Done 0. Done again.</s>"
    # text
    page.find("#text").send_keys("NUMBER 7")
    assert [line.text.split("\n")[0] for line in page.all("#list li")] == ["agent, conversation 7"]
    assert page.title() == "agent, conversation 7"
    assert "".join(n.get_attribute("textContent") for n in page.all("#tokens i.hit")).strip() == "number 7"
    page.find("#text").clear()
    page.find("#text").send_keys("done")
    assert page.find("#hits").text == "match 1 of 2"
    page.find("#next-hit").click()
    assert page.find("#hits").text == "match 2 of 2"
    page.find("#text").clear()
    page.find("#text").send_keys("(regular) [e")
    assert page.title() == "general, conversation 1"
    page.find("#text").clear()
    page.find("#text").send_keys("nowhere")
    assert (page.title(), page.all("#list li")) == ("Nothing found", [])
    page.find("#text").clear()
    # number and source
    page.find("#number").send_keys("1")
    assert len(page.all("#list li")) == 2
    page.find("#source").send_keys("general")
    assert [line.text.split("\n")[0] for line in page.all("#list li")] == ["general, conversation 1"]
    page.find("#number").clear()
    page.find("#number").send_keys("0")
    # hostile text is only text
    shown = page.find("#tokens").get_attribute("textContent")
    assert shown.count("</script><script>document.title='pwned'</script><img src=x onerror=") == 2
    assert shown.count("␀␛[2J[U+202E]X") == 2
    assert browser.title == "Conversations of agent, general"
    assert not page.all("#tokens img, #tokens script, #list img")
    page.find("#show-statistics").click()
    assert page.title() == "Statistics of the sources"
    assert [node.text for node in page.all(".source h2")] == ["agent", "general"]
    assert page.errors() == []


def test_attention_of_a_row(browser: Any, build: Callable[..., str], tmp_path: Path) -> None:
    agent = build("agent", *(record(f"a{i}", f"task {i}", "go " * i + ".") for i in range(8)))
    general = build("general", *(record(f"g{i}", f"why {i}?", "since " * i + ".") for i in range(9)))
    data = {"agent": [{"prefix": agent}], "general": [{"prefix": general}], "eta": 0.5, "seq_length": 400}
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"data": yaml.safe_load(json.dumps(data)), "training": {"train_iters": 1}}))
    file = tmp_path / "rows.html"
    inspect_rows(config, [5, 6], html=file)
    row = PackedRows(*load_config(config)).row(5)
    page = Page(browser, file)
    assert page.title() == "row 5"
    lines = [line.text.split() for line in page.all("#segments tbody tr")]
    assert [int(line[-2]) for line in lines] == (row.cu_seqlens[1:] - row.cu_seqlens[:-1]).tolist()
    names = ["agent", "general", "padding"]
    assert [line[1] for line in lines] == [names[source] for source in row.segment_sources]
    assert len(page.all("#tokens .border")) == len(lines)
    # what the picture's pixels say of pairs (query, key), against cu_seqlens
    colour_at = """
        const canvas = document.getElementById("picture"), side = canvas.width / arguments[0];
        const at = (n) => Math.floor((n + 0.5) * side);
        const pixel = canvas.getContext("2d").getImageData(at(arguments[2]), at(arguments[1]), 1, 1).data;
        return pixel[0] + pixel[1] + pixel[2] < 740;"""
    segment = row.cu_seqlens.searchsorted(range(400), side="right")
    for query in range(7, 400, 23):
        for key in range(3, 400, 19):
            border = min(abs(query - key), *(abs(n - b) for n in (query, key) for b in row.cu_seqlens.tolist()))
            if border > 2:  # away from outlines
                attends = segment[query] == segment[key] and key <= query
                assert browser.execute_script(colour_at, 400, query, key) == attends, (query, key)
    # what the pointer says
    picture = page.find("#picture")
    stop = int(row.cu_seqlens[1])
    page.point_at(picture, -199 + 1, -199 + stop // 2)
    assert page.find("#pair").text.endswith("attends")
    page.point_at(picture, -199 + stop // 2, -199 + 1)
    assert page.find("#pair").text.endswith("masked, a later token")
    page.point_at(picture, -198, 190)
    assert page.find("#pair").text.endswith("masked, another segment")
    # ids, labels, positions and loss mask of tokens
    for at in (0, stop - 1, stop, stop + 9):
        node = page.find(f'#tokens i[data-i="{at}"]')
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", node)
        page.point_at(node)
        tip = page.find("#tip").text
        for part in (f"token {at} ", f"id {row.tokens[at]} ", f"position_id {row.position_ids[at]}\n"):
            assert part in tip
        assert f"label {row.labels[at]} " in tip
        assert f"loss mask {int(row.loss_mask[at])} " in tip
    page.press("j")
    assert page.title() == "row 6"
    assert page.errors() == []
