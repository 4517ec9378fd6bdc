"""The client against a local server that speaks the protocol, and against none."""

import multiprocessing
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_agent.agents.client import ContextLimitError, OpenAIChatClient, Reply, RequestError
from megatron_agent.chat.conversation import Turn
from megatron_agent.chat.template import encode_prompt, get_template
from megatron_agent.chat.tokenizer import load_tokenizer
from megatron_agent.errors import UserError
from tests.agents.openai_server import openai_server
from tests.chat.test_template import SMOLLM2_JINJA
from tests.chat.tiny_tokenizers import train_chatml

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def test_request_and_reply() -> None:
    with openai_server(lambda body: "hello") as server:
        reply = OpenAIChatClient(server.base_url, "my-model", max_tokens=17).complete(MESSAGES)
    assert reply.seconds > 0
    assert replace(reply, seconds=0) == Reply("hello", prompt_tokens=11, completion_tokens=7, finish_reason="stop")
    (request,) = server.requests
    assert request["messages"] == MESSAGES
    assert request == {"model": "my-model", "messages": MESSAGES, "max_tokens": 17, "temperature": 0.0}


@pytest.mark.parametrize("system", [None, " Be brief.\n"])
def test_a_served_template_sees_what_training_saw(tmp_path: Path, system: str | None) -> None:
    """Truth: SmolLM2's own chat template, as a server applies it to the request, against `encode_prompt`."""
    from transformers import PreTrainedTokenizerFast

    folder = train_chatml(tmp_path)
    prologue = [] if system is None else [Turn("system", system)]
    turns = [
        *prologue,
        Turn("human", "  How many\nrows? \n"),
        Turn("gpt", "\nI think.\n"),
        Turn("human", "[('12',)]\n"),
    ]
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    with openai_server(lambda body: "ok") as server:
        messages = [{"role": roles[turn.speaker], "content": turn.value} for turn in turns]
        OpenAIChatClient(server.base_url, "m").complete(messages)
    served = PreTrainedTokenizerFast.from_pretrained(str(folder)).apply_chat_template(
        server.requests[0]["messages"],
        chat_template=SMOLLM2_JINJA,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )
    assert served == encode_prompt(turns, get_template("chatml"), load_tokenizer(folder))


def test_an_empty_reply_is_empty_text() -> None:
    with openai_server(lambda body: "") as server:
        assert OpenAIChatClient(server.base_url, "m").complete(MESSAGES).text == ""


def test_server_errors_are_tried_again() -> None:
    answers = iter([(500, {"error": {"message": "busy"}}), (429, {"error": {"message": "slow"}}), "at last"])
    with openai_server(lambda body: next(answers)) as server:
        assert OpenAIChatClient(server.base_url, "m", retries=2, first_pause=0.01).complete(MESSAGES).text == "at last"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "message", "expected", "text"),
    [
        (500, "broken", RequestError, "status 500"),
        (400, "bad field", RequestError, "bad field"),
        (400, "This model's maximum context length is 4096 tokens", ContextLimitError, "4096"),
        (413, "prompt too long", ContextLimitError, "too long"),
        (401, "no key", UserError, "refused the API key"),
        (400, "Server is pinned to 'a'; requested 'm'.", UserError, "the model 'm'"),  # transformers serve
        (404, "model not found", UserError, "does not know this address or the model 'm'"),
    ],
)
def test_refusals(status: int, message: str, expected: type[Exception], text: str) -> None:
    with openai_server(lambda body: (status, {"error": {"message": message}})) as server:
        client = OpenAIChatClient(server.base_url, "m", retries=0)
        with pytest.raises(expected, match=text):
            client.complete(MESSAGES)


def test_no_answer_in_time() -> None:
    def sleepy(body: object) -> str:
        time.sleep(1)
        return "late"

    with openai_server(sleepy) as server:
        client = OpenAIChatClient(server.base_url, "m", timeout=0.2, retries=0)
        with pytest.raises(RequestError, match=r"no answer within 0\.2 s"):
            client.complete(MESSAGES)


def test_dead_server_says_what_to_start() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client = OpenAIChatClient(f"http://127.0.0.1:{port}/v1", "my-model", retries=0)
    with pytest.raises(UserError) as error:
        client.complete(MESSAGES)
    assert f"http://127.0.0.1:{port}/v1" in str(error.value)
    assert "transformers serve my-model" in str(error.value)


def test_base_url_needs_a_scheme() -> None:
    with pytest.raises(UserError, match="--base-url"):
        OpenAIChatClient("localhost:8000", "m")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_sends_requests_too() -> None:
    """The thread of the request loop is not in the child."""
    with openai_server(lambda body: "hello") as server:
        OpenAIChatClient(server.base_url, "m").complete(MESSAGES)
        child = multiprocessing.get_context("fork").Process(target=ask, args=(server.base_url,))
        child.start()
        child.join(30)
        alive = child.is_alive()
        child.kill()
        child.join()
    assert (alive, child.exitcode) == (False, 0)


def ask(base_url: str) -> None:
    assert OpenAIChatClient(base_url, "m").complete(MESSAGES).text == "hello"
