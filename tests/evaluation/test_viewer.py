"""The page of transcripts: what is in the file, and in a real browser (Debian's chromium through selenium)."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from megatron_agent.errors import UserError
from megatron_agent.evaluation.viewer import main, write_viewer
from tests.browser import OpenPage

HOSTILE = (
    "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"> "
    "\0\x1b[2J\u202eX\ud800 {{script}}"
)
CONTEXT = [
    {"role": "user", "content": "The instruction."},
    {"role": "assistant", "content": "Ok."},
    {"role": "user", "content": "A demonstration."},
    {"role": "assistant", "content": "Shown."},
]


def episode(number: int, reward: float = 1.0, status: str = "completed", text: str = "") -> dict[str, Any]:
    messages = [
        *CONTEXT,
        {"role": "user", "content": f"Task number {number}. {text}"},
        {"role": "assistant", "content": f"Thought: I think {number}.\nAction: look {number}{text}"},
        {"role": "user", "content": f"You see {number}."},
        {"role": "assistant", "content": f"Action: take {number}"},
    ]
    figures = {"rounds": 2, "seconds": 1.5, "prompt_tokens": 1234, "completion_tokens": 9, "scores": {"f1": 0.5}}
    ending = {"reward": reward, "status": status, "error": "no answer" if status == "task error" else None}
    return {"id": f"e_{number}", "category": "look", "context_messages": 5, **ending, **figures, "messages": messages}


def write(folder: Path, task: str, *episodes: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({"task": task}))
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in episodes))
    return folder


class Page(OpenPage):
    """What a user sees and does."""

    def texts(self, selector: str) -> list[str]:
        """What stands in the elements of a selector, seen or not."""
        script = "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)"
        return self.driver.execute_script(script, selector)

    def fill(self, field: str, text: str) -> None:
        """Put a text into a field, as typing does, and let a search begin at once."""
        script = "document.getElementById(arguments[0]).value = arguments[1]; filter()"
        self.driver.execute_script(script, field, text)

    def listed(self) -> list[str]:
        return self.texts("#list li span")


def test_reading_and_finding_episodes(browser: Any, tmp_path: Path) -> None:
    write(tmp_path / "database", "database", *(episode(n) for n in range(3)), episode(7, 0.0, "invalid format"))
    shop = write(
        tmp_path / "webshop", "webshop", episode(4, 0.4), episode(5, 0.0, "task error"), episode(6, 1.0, text=HOSTILE)
    )
    events = [
        {"event": "message", "task_id": "e_8", "index": i, **message}
        for i, message in enumerate(episode(8)["messages"][:6])
    ]
    events[5]["request_seconds"] = 0.5
    (shop / "transcripts.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"cut')
    output = tmp_path / "page.html"
    main([str(tmp_path), "--output", str(output)])
    page = Page(browser, output)
    # thought, action and observation apart; instruction and demonstrations folded
    assert page.title() == "e_0"
    assert page.texts("#messages .message h2") == ["task", "thought", "action", "observation", "action"]
    assert page.texts("#messages .thought pre")[0].strip().endswith("I think 0.")
    assert "look 0" in page.texts("#messages .action pre")[0]
    assert page.find("#context summary").text == "Instruction and demonstrations (4 messages)"
    assert not page.find("#context pre").is_displayed()
    page.find("#context summary").click()
    assert page.find("#context pre").text == "The instruction."
    assert page.find("#facts").text == "database · look · f1 0.5 · 1.5 s · 1,234 prompt tokens · 9 completion tokens"
    assert page.find("#end").text == "database, reward 1, completed, 2 rounds"
    # next and previous by key and by button
    assert not page.find("#previous").is_enabled()
    page.find("body").send_keys("j")
    page.find("#next").click()
    assert page.title() == "e_2"
    page.find("body").send_keys("k")
    assert page.title() == "e_1"
    # filters
    page.fill("task", "webshop")
    assert page.listed() == ["e_4", "e_5", "e_6", "e_8"]
    page.fill("status", "task error")
    assert (page.listed(), page.find("#end").text) == (["e_5"], "webshop, reward 0, task error, 2 rounds: no answer")
    page.fill("status", "unfinished")
    assert page.listed() == ["e_8"]
    assert page.texts("#messages .message h2") == ["task", "thought", "action"]
    page.fill("status", "")
    page.fill("task", "")
    page.fill("least", "0.1")
    page.fill("most", "0.9")
    assert (page.listed(), page.find("#found").text) == (["e_4"], "1 of 8 episodes, mean reward 0.400")
    page.fill("least", "")
    page.fill("most", "")
    page.fill("text", "TAKE 7")
    assert (page.listed(), page.texts("#messages mark")) == (["e_7"], ["take 7"])
    page.fill("text", "(nothing")
    assert (page.listed(), page.title()) == ([], "Nothing found")
    # hostile text is only text
    page.fill("text", "img src")
    assert page.listed() == ["e_6"]
    shown = page.texts("#messages .task pre")[0]
    assert "</script><script>document.title='pwned'</script><img src=x onerror=" in shown
    assert "␀␛[2J[U+202E]X[U+D800] {{script}}" in shown
    assert browser.title == "Transcripts: database, webshop"
    assert page.texts("#messages img, #messages script, #list img") == []
    assert page.errors() == []


def test_thousands_of_episodes_on_pages_that_link_to_one_another(browser: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "run", "database", *(episode(n, n % 2) for n in range(5000)))
    pages = write_viewer([folder], tmp_path / "a b.html", page_bytes=1_000_000)
    assert [path.name for path in pages] == ["a b.html", "a b-2.html"]
    assert all(path.stat().st_size < 2_200_000 for path in pages)
    assert all(path.read_text().count("A demonstration.") == 1 for path in pages), "the context is kept once"
    page = Page(browser, pages[0])
    first = len(page.listed())
    page.fill("text", "number 4999")
    assert page.listed() == []
    page.find("#pages a").click()
    assert len(page.listed()) == 5000 - first
    page.fill("text", "number 4999")
    assert (page.listed(), page.title()) == (["e_4999"], "e_4999")
    assert page.errors() == []


def test_a_reply_that_was_cut_is_shown_as_kept_and_whole(browser: Any, tmp_path: Path) -> None:
    cut = episode(1)
    cut["messages"][5].update(
        content="Thought: I.\nAction: look\nObservation: gold", kept="Thought: I.\nAction: look\n"
    )
    page = Page(browser, write_viewer([write(tmp_path / "run", "knowledge_graph", cut)], tmp_path / "page.html")[0])
    whole = "the whole reply, of which the above stayed in the conversation"
    assert page.texts("#messages .message h2") == ["task", "thought", "action", whole, "observation", "action"]
    assert page.texts("#messages .other pre") == ["Thought: I.\nAction: look\nObservation: gold"]
    cut["messages"][5].update(content="Observation: gold", kept="")
    page = Page(browser, write_viewer([write(tmp_path / "two", "knowledge_graph", cut)], tmp_path / "two.html")[0])
    assert page.texts("#messages .message h2") == ["task", "empty reply", whole, "observation", "action"]
    page.fill("text", "gold")
    assert page.texts("#messages mark") == ["gold"]
    assert page.errors() == []


def test_a_long_text_is_cut_until_asked_for(browser: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "run", "database", episode(1, text="x" * 300_000))
    page = Page(browser, write_viewer([folder], tmp_path / "page.html")[0])
    assert len(page.texts("#messages .task pre")[0]) == 100_000
    page.find("#messages .task button").click()
    assert len(page.texts("#messages .task pre")[0]) > 300_000


def test_the_page_names_nothing_outside_of_it(tmp_path: Path) -> None:
    (path,) = write_viewer([write(tmp_path / "run", "database", episode(1, text=HOSTILE))], tmp_path / "page.html")
    page = path.read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)=["']|https?://|@import|url\(""", page)
    assert page.count("</script>") == 3


def test_folders_without_episodes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected an output folder of megatron_agent.evaluate, found no results.json"):
        main([str(tmp_path), "--output", str(tmp_path / "page.html")])
    nothing = write(tmp_path / "run", "database")
    main([str(nothing), str(tmp_path), "--output", str(tmp_path / "page.html")])
    assert '"index":[]' in (tmp_path / "page.html").read_text()
