"""evaluate with several tasks, experts and recorded replies; the seventh task of docs/examples through the command."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from megatron_agent.environments import database
from megatron_agent.errors import UserError
from megatron_agent.evaluate import main
from tests.agents.openai_server import openai_server

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "guess_number.py"
TRAINING_PROMPT = "You are a helpful, respectful and honest assistant."


def read(path: Path) -> dict[str, Any]:
    return json.loads((path / "summary.json").read_text())


def bisect(body: dict[str, Any]) -> str:
    """A model that halves the numbers left; the prompt's greatest number is its first bound."""
    bound = re.search(r"from 1 to (\d+)", "\n".join(message["content"] for message in body["messages"]))
    assert bound is not None
    low, high = 1, int(bound[1])
    guess = (low + high) // 2
    answers = [message["content"] for message in body["messages"] if message["content"] in ("Higher.", "Lower.")]
    for answer in answers:
        low, high = (guess + 1, high) if answer == "Higher." else (low, guess - 1)
        guess = (low + high) // 2
    return f"Half of it.\nAction: guess[{guess}]"


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """A second task of the same kind: another name, its options renamed, the weight of the database task."""
    text = EXAMPLE.read_text().replace("guess_number", "guess_again").replace("guess_highest", "again_highest")
    path = tmp_path / "guess_again.py"
    path.write_text(text.replace("    expert=make_expert,", "    expert=make_expert,\n    weight=12.0,"))
    return path


def test_the_seventh_task_is_played_by_its_expert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--task", str(EXAMPLE), "--expert", "--output", str(tmp_path)])
    summary = read(tmp_path)
    assert (summary["tasks"], summary["score"], summary["weight"]) == (4, 100.0, None)
    assert summary["settings"]["model"] == "expert"
    assert "score: 100.0 (100 x success_rate)" in capsys.readouterr().out


def test_the_seventh_task_is_played_by_a_served_model(tmp_path: Path) -> None:
    (tmp_path / "numbers.txt").write_text("3\n50\n97\n")
    arguments = ["--task", str(EXAMPLE), "--tasks", str(tmp_path / "numbers.txt"), "--model", "m"]
    sampling = ["--temperature", "0.5", "--top-p", "0.9", "--seed", "7", "--max-tokens", "64"]
    prices = ["--price-prompt", "1000", "--price-completion", "2000"]
    with openai_server(bisect) as server:
        main([*arguments, *sampling, *prices, "--base-url", server.base_url, "--output", str(tmp_path / "out")])
    summary = read(tmp_path / "out")
    results = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert (summary["tasks"], summary["score"]) == (3, 100.0)
    assert {result["id"]: result["scores"]["guesses"] for result in results}["guess_50"] == 1
    assert summary["cost"] == pytest.approx((11 * 1000 + 7 * 2000) / 1e6 * len(server.requests))
    assert {(body["temperature"], body["top_p"], body["max_tokens"]) for body in server.requests} == {(0.5, 0.9, 64)}
    assert len({body["seed"] for body in server.requests}) == 3, "an episode has a seed of its own"
    assert {name: summary["settings"][name] for name in ("top_p", "seed")} == {"top_p": 0.9, "seed": 7}


def test_recorded_replies_give_the_same_scores(tmp_path: Path) -> None:
    arguments = ["--task", str(EXAMPLE), "--guess-highest", "60", "--prompt-style", "fixed"]
    with openai_server(bisect) as server:
        main([*arguments, "--base-url", server.base_url, "--model", "m", "--output", str(tmp_path / "played")])
    first = server.requests[0]["messages"][0]
    assert first == {"role": "system", "content": TRAINING_PROMPT}
    main([*arguments, "--replay", str(tmp_path / "played"), "--output", str(tmp_path / "again")])
    played, again = read(tmp_path / "played"), read(tmp_path / "again")
    for name in ("score", "statuses", "mean_rounds", "categories"):
        assert played[name] == again[name]
    with pytest.raises(
        UserError, match=r"--replay nowhere: expected nowhere/guess_number/results.jsonl or nowhere/res"
    ):
        main([*arguments, "--replay", "nowhere", "--output", str(tmp_path / "no")])


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        ([], None),
        (["--prompt-style", "fixed"], TRAINING_PROMPT),
        (["--prompt-style", "fixed", "--system-prompt", ""], None),
        (["--system-prompt", "Be good."], "Be good."),
    ],
)
def test_the_system_prompt_of_each_style(tmp_path: Path, words: list[str], sent: str | None) -> None:
    """`paper` sends none, as the released client; `fixed` sends what the models were trained with."""
    with openai_server(bisect) as server:
        main(["--task", str(EXAMPLE), "--limit", "1", "--base-url", server.base_url, "--model", "m",
              "--output", str(tmp_path), *words])  # fmt: skip
    first = server.requests[0]["messages"][0]
    assert (first["content"] if first["role"] == "system" else None) == sent


def test_several_tasks_together(second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    arguments = ["--task", str(EXAMPLE), str(second), "--output", str(output), "--again-highest", "8"]
    with openai_server(bisect) as server:
        served = [*arguments, "--base-url", server.base_url, "--model", "m"]
        main(served)
        count = len(server.requests)
        main(served)
        assert len(server.requests) == count, "nothing is played twice"
        with pytest.raises(UserError, match=r"guess_again holds results of another run: tasks_sha256, facts.highest"):
            main([*served, "--again-highest", "12"])
    summary = read(output)
    assert summary["scores"] == {"guess_number": 100.0, "guess_again": 100.0}
    assert (summary["overall"], summary["overall_of"]) == (None, ["guess_again"])
    assert summary["partial_overall"] == pytest.approx(100 / 12)
    assert (summary["episodes"], summary["statuses"]) == (8, {"completed": 8})
    assert summary["missing"][0] == "alfworld"
    assert summary["of_tasks"]["guess_again"]["tasks"] == 4
    assert summary["paper"]["AgentLM-7B"]["overall"] == 1.96
    assert read(output / "guess_again")["settings"]["facts"] == {"highest": 8}
    assert (output / "guess_number" / "results.jsonl").exists()
    page = (output / "transcripts.html").read_text()
    assert "<title>Transcripts: guess_again, guess_number</title>" in page
    printed = capsys.readouterr().out
    assert "overall: 8.33 (partial: 1 of 6 tasks); missing: alfworld" in printed
    main([*arguments, "--replay", str(output), "--output", str(tmp_path / "again")])
    assert read(tmp_path / "again")["scores"] == summary["scores"]


def test_other_prompts_are_other_settings(tmp_path: Path) -> None:
    prompt, arguments = tmp_path / "p.json", ["--task", str(EXAMPLE), "--expert", "--output", str(tmp_path / "out")]
    prompt.write_text('[{"role": "user", "content": "Guess."}, {"role": "agent", "content": "Yes."}]')
    main(arguments)
    for words, name in ((["--prompt-style", "fixed"], "prompt_style"), (["--prompt-file", str(prompt)], "prompt_sha")):
        with pytest.raises(UserError, match=f"results of another run: .*{name}"):
            main([*arguments, *words])


def test_no_tasks_and_two_of_one_id_are_refused(tmp_path: Path, second: Path) -> None:
    (tmp_path / "numbers.txt").write_text("3\n5\n3\n")
    arguments = ["--expert", "--output", str(tmp_path / "out"), "--tasks", f"guess_number={tmp_path / 'numbers.txt'}"]
    with pytest.raises(UserError, match="expected every task of guess_number to have an id of its own; 'guess_3'"):
        main(["--task", str(second), str(EXAMPLE), *arguments])
    (tmp_path / "numbers.txt").write_text("")
    with pytest.raises(UserError, match="--tasks: expected tasks of guess_number, found none"):
        main(["--task", str(second), str(EXAMPLE), *arguments])
    assert not (tmp_path / "out").exists(), "told before the first task is played"


def test_a_world_that_cannot_open_stops_the_run_before_the_first_request(second: Path, tmp_path: Path) -> None:
    with openai_server(bisect) as server, pytest.raises(UserError, match="--guess-highest: expected at least 4"):
        main(["--task", str(EXAMPLE), str(second), "--again-highest", "2", "--base-url", server.base_url,
              "--model", "m", "--output", str(tmp_path / "out")])  # fmt: skip
    assert (server.requests, (tmp_path / "out").exists()) == ([], False)


def test_tasks_that_cannot_be_played_together(second: Path, tmp_path: Path) -> None:
    main(["--task", str(EXAMPLE), "--expert", "--output", str(tmp_path / "one")])
    with pytest.raises(UserError, match="one: holds the results of one task; give another folder for 2"):
        main(["--task", str(EXAMPLE), str(second), "--expert", "--output", str(tmp_path / "one")])
    text = second.read_text().replace("expert=make_expert", "expert=None")
    second.write_text(text.replace('name="guess_again"', 'name="a/b"'))
    with pytest.raises(UserError, match="'a/b' cannot name a folder of --output"):
        main(["--task", str(EXAMPLE), str(second), "--expert", "--output", str(tmp_path / "two")])
    with pytest.raises(UserError, match="--expert: the tasks of a/b carry no gold solution"):
        main(["--task", str(second), "--expert", "--output", str(tmp_path / "two")])


def test_help_shows_the_options_of_the_tasks_that_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    general = capsys.readouterr().out
    assert "With --task T --help the options of that task are shown as well" in general
    assert "--guess-highest" not in general
    with pytest.raises(SystemExit):
        main(["--task", str(EXAMPLE), "--help"])
    assert "--guess-highest" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["temperature", "max-tokens", "timeout", "retries", "top-p", "seed", "price-prompt"])
def test_options_of_requests_are_refused_where_none_is_made(tmp_path: Path, flag: str) -> None:
    for player in (["--expert"], ["--replay", str(tmp_path)]):
        with pytest.raises(UserError, match=rf"{player[0]} asks no server: leave --{flag} away$"):
            main(["--task", str(EXAMPLE), "--output", str(tmp_path / "out"), *player, f"--{flag}", "1"])


def test_a_temperature_of_none_is_not_sent(tmp_path: Path) -> None:
    arguments = ["--task", str(EXAMPLE), "--temperature", "none", "--limit", "1", "--model", "m"]
    with openai_server(bisect) as server:
        main([*arguments, "--base-url", server.base_url, "--output", str(tmp_path)])
    assert all("temperature" not in body for body in server.requests)
    assert read(tmp_path)["settings"]["temperature"] is None


def other_task(second: Path, name: str) -> Path:
    path = second.with_name(f"{name}.py")
    path.write_text(second.read_text().replace("guess_again", name).replace("again_highest", f"{name}_highest"))
    return path


def test_later_tasks_join_those_of_earlier_runs(
    tmp_path: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, expert = tmp_path / "out", ["--expert", "--output", str(tmp_path / "out")]
    main(["--task", str(EXAMPLE), str(second), *expert])
    third, fourth = other_task(second, "guess_third"), other_task(second, "a_fourth")
    capsys.readouterr()
    main(["--task", str(third), *expert])  # one task, too, gets a folder of its own there
    assert list(read(output)["scores"]) == ["guess_again", "guess_number", "guess_third"]
    assert (read(output)["earlier"], read(output)["unfinished"]) == (["guess_again", "guess_number"], [])
    assert "not played now, scores of earlier runs: guess_again, guess_number" in capsys.readouterr().out
    (output / "guess_number" / "summary.json").unlink()
    main(["--task", str(third), str(fourth), *expert])
    assert list(read(output)["scores"]) == ["a_fourth", "guess_again", "guess_third"]
    assert read(output)["unfinished"] == ["guess_number"]
    assert "not finished, no scores yet: guess_number" in capsys.readouterr().out
    page = (output / "transcripts.html").read_text()
    assert "<title>Transcripts: a_fourth, guess_again, guess_number, guess_third</title>" in page
    (output / "guess_again" / "summary.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"guess_again/summary.json: expected the summary of a task, lacks completion_t"
    ):
        main(["--task", str(third), *expert])


def test_tasks_of_other_settings_do_not_join(tmp_path: Path, second: Path) -> None:
    output = tmp_path / "out"
    main(["--task", str(EXAMPLE), str(second), "--expert", "--output", str(output)])
    before = read(output)
    arguments = ["--task", str(other_task(second, "guess_third")), "--output", str(output)]
    with openai_server(bisect) as server, pytest.raises(UserError, match="guess_again of another run, model, max_tok"):
        main([*arguments, "--base-url", server.base_url, "--model", "m"])
    with pytest.raises(UserError, match=r"guess_again of another run, prompt_style, system_prompt differ\(s\).*paper"):
        main([*arguments, "--expert", "--prompt-style", "fixed"])
    assert (server.requests, read(output), (output / "guess_third").exists()) == ([], before, False)


def test_two_runs_do_not_share_a_folder(tmp_path: Path, second: Path) -> None:
    """While the first asks its first question, others are refused; nothing of them stays, and no lock."""
    refused: list[str] = []
    root, part = tmp_path / "out", tmp_path / "out" / "guess_number"

    def reply(body: dict[str, Any]) -> str:
        if not refused:
            for tasks, output in ([EXAMPLE], root), ([EXAMPLE], part), ([EXAMPLE, second], root), ([second], root):
                with pytest.raises(UserError) as error:
                    main(["--task", *map(str, tasks), "--expert", "--output", str(output)])
                refused.append(str(error.value))
        return bisect(body)

    with openai_server(reply) as server:
        main(["--task", str(EXAMPLE), str(second), "--base-url", server.base_url, "--model", "m", "--concurrency", "1",
              "--output", str(root)])  # fmt: skip
    text = "--output {}: another run writes there now; wait for it, or give another folder"
    assert refused == [text.format(folder) for folder in (root, part, root, root)]
    assert read(root)["scores"] == {"guess_again": 100.0, "guess_number": 100.0}
    assert not list(tmp_path.rglob(".lock"))


def test_scores_of_other_tasks_than_the_papers_are_said_not_to_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--task", "database", "--expert", "--limit", "2", "--output", str(tmp_path / "shipped")])
    assert "not comparable with the paper's" in capsys.readouterr().out
    folder = tmp_path / "data" / "dbbench"
    folder.mkdir(parents=True)
    lines = (Path(database.__file__).parent / "shipped.jsonl").read_text().splitlines()[:3]
    (folder / "standard.jsonl").write_text("\n".join(lines) + "\n")
    arguments = ["--task", "database", "--tasks", str(tmp_path / "data"), "--split", "std", "--expert"]
    main([*arguments, "--output", str(tmp_path / "whole")])
    assert "not comparable" not in capsys.readouterr().out
    assert read(tmp_path / "whole")["whole_std_split"] is True
    main([*arguments, "--limit", "2", "--output", str(tmp_path / "part")])
    assert "not AgentBench's whole std split was played of database\n" in capsys.readouterr().out
    main([*arguments, "--prompt-style", "fixed", "--output", str(tmp_path / "fixed")])
    assert "not comparable with the paper's: another prompt style than paper of database\n" in capsys.readouterr().out
