"""What the client sends, what it counts, and how it takes the words of servers that differ."""

import asyncio
import gc
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from megatron_agent.agents.client import ContextLimitError, OpenAIChatClient, Prices, RequestError, episode_seed
from megatron_agent.agents.reply import read_completion
from megatron_agent.agents.transport import send
from megatron_agent.errors import UserError
from tests.agents.misbehaviour import body, status
from tests.agents.openai_server import completion, openai_server

MESSAGES = [{"role": "user", "content": "Hi"}]


def test_options_that_are_not_given_are_not_sent() -> None:
    with openai_server(lambda body: "ok") as server:
        OpenAIChatClient(server.base_url, "m", temperature=None).complete(MESSAGES)
        OpenAIChatClient(
            server.base_url, "m", temperature=0.7, top_p=0.9, stop=["\n"], seed=5, extra_body={"top_k": 3}
        ).complete(MESSAGES)
    plain, full = server.requests
    assert set(plain) == {"model", "messages", "max_tokens"}
    assert {name: full[name] for name in set(full) - set(plain)} == {
        "temperature": 0.7,
        "top_p": 0.9,
        "stop": ["\n"],
        "seed": 5,
        "top_k": 3,
    }


def test_every_task_has_its_own_seed_the_same_in_every_run() -> None:
    with openai_server(lambda body: "ok") as server:
        for name in ("a", "b", "a"):
            client = OpenAIChatClient(server.base_url, "m", seed=1)
            client.for_task(SimpleNamespace(id=name, category="")).complete(MESSAGES)
    first, second, again = (request["seed"] for request in server.requests)
    assert first == again != second
    assert 0 <= first < 2**31
    assert first != episode_seed(2, "a")
    assert episode_seed(None, "a") is None


def test_texts_that_no_encoder_takes_are_sent_all_the_same() -> None:
    """Such as words of the command line that are not UTF-8."""
    with openai_server(lambda body: "ok") as server:
        OpenAIChatClient(server.base_url, "m\udcff").complete([{"role": "user", "content": "a\udcff \ud83d\ude00"}])
    (request,) = server.requests
    assert (request["model"], request["messages"][0]["content"]) == ("m\ufffd", "a\ufffd \U0001f600")


def test_the_time_for_all_tries_suffices_for_them() -> None:
    def client(**options: Any) -> OpenAIChatClient:
        return OpenAIChatClient("http://127.0.0.1:9/v1", "m", **options)

    assert client().total_timeout == 600
    assert client(timeout=1200).total_timeout == 4 * 1230
    assert client(timeout=1200, total_timeout=5).total_timeout == 5


def test_an_error_while_a_request_is_given_up_is_not_printed(caplog: pytest.LogCaptureFixture) -> None:
    """A second episode meets the dead server while the first's error ends the run."""
    started = threading.Event()

    async def fail() -> None:
        started.set()
        time.sleep(0.1)  # the loop is busy: the cancelling below comes after the error
        raise ValueError("late")

    future = send(fail())
    started.wait(20)
    assert future.cancel()
    send(asyncio.sleep(0)).result(20)
    gc.collect()
    assert not caplog.records


def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://nowhere:1")
    with pytest.raises(UserError, match="the proxy or the certificates that the environment names"):
        OpenAIChatClient("https://127.0.0.1:9/v1", "m")


def test_cost() -> None:
    with openai_server(lambda body: "ok") as server:
        reply = OpenAIChatClient(server.base_url, "m", prices=Prices(prompt=3.0, completion=15.0)).complete(MESSAGES)
    assert reply.cost == pytest.approx((11 * 3 + 7 * 15) / 1e6)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "many",
        {"prompt_tokens": "11", "completion_tokens": -1},
        {"prompt_tokens": True},
        {"prompt_tokens": 10**400, "completion_tokens": -1},
    ],
)
def test_odd_counts_are_no_counts(usage: Any) -> None:
    answer = {**completion("ok"), "usage": usage}
    with openai_server(lambda body: (200, answer)) as server:
        reply = OpenAIChatClient(server.base_url, "m", prices=Prices(1, 1)).complete(MESSAGES)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.cost) == ("ok", None, None, None)


@pytest.mark.parametrize(
    "message",
    [
        '{"content": null}',
        '{"role": "assistant", "reasoning": "I think"}',  # mlx-lm (issue 1738): all tokens went into reasoning
        '{"role": "assistant", "content": null, "reasoning_content": "I think"}',  # vLLM
        '{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {}}]}',
    ],
)
def test_a_message_without_a_text_is_an_empty_reply(message: str) -> None:
    body = f'{{"choices": [{{"message": {message}, "finish_reason": "length"}}]}}'.encode()
    assert read_completion(body, None, 0.0).text == ""
    assert read_completion(body, None, 0.0).finish_reason == "length"


def test_lone_surrogates_are_replaced() -> None:
    text = rb'{"choices": [{"message": {"content": "a\ud83d b\ud83d\ude00"}}]}'
    assert read_completion(text, None, 0.0).text == "a\ufffd b\U0001f600"


def test_newer_models_want_max_completion_tokens() -> None:
    refusal = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )

    def respond(request: dict[str, Any]) -> Any:
        return "ok" if "max_completion_tokens" in request else status(400, refusal)

    with openai_server(respond) as server:
        client = OpenAIChatClient(server.base_url, "m", max_tokens=9, retries=0)
        assert client.complete(MESSAGES).text == client.complete(MESSAGES).text == "ok"
    assert [request.get("max_completion_tokens") for request in server.requests] == [None, 9, 9], "asked once"


def test_a_server_that_takes_neither_is_not_asked_for_ever() -> None:
    refusal = status(400, "'max_tokens' is not supported here")
    with openai_server(lambda request: refusal) as server, pytest.raises(RequestError, match="not supported here"):
        OpenAIChatClient(server.base_url, "m", retries=5).complete(MESSAGES)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (400, "This model's maximum context length is 4096 tokens. However, you requested 4200 tokens"),  # vLLM, OpenAI
        (422, "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000"),  # TGI
        (400, "the request exceeds the available context size, try increasing it"),  # llama.cpp
        (400, "The input (5000 tokens) is longer than the model's context length (4096 tokens)."),  # SGLang
        (400, "prompt is too long: 210000 tokens > 200000 maximum"),  # Anthropic
        (400, "The input token count (40000) exceeds the maximum number of tokens allowed (32768)."),  # Gemini
        (
            422,
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens",
        ),
        (400, "The decoder prompt (length 5951) is longer than the maximum model length of 4096."),  # vLLM
        (400, "The input token count is 135538 but model only supports up to 131072"),  # Gemini
        (400, "Input tokens exceed the configured limit of 272000 tokens."),  # OpenAI
        (400, "Please reduce the length of the messages or completion."),  # Groq
        (400, "length of prompt_tokens (163280) must be less than max_seq_len (32768)."),
        (413, "Request too long"),
    ],
)
def test_context_limits_in_the_words_of_servers(code: int, message: str) -> None:
    with openai_server(lambda request: status(code, message)) as server, pytest.raises(ContextLimitError):
        OpenAIChatClient(server.base_url, "m").complete(MESSAGES)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "message",
    [
        "Input validation error: `max_new_tokens` must be <= 4096. Given: 5000",
        "max_tokens must be at least 1, got 0",
        "Unexpected token count",
        "temperature must be between 0 and 2",
    ],
)
def test_other_refusals_are_no_context_limits(message: str) -> None:
    with openai_server(lambda request: status(400, message)) as server, pytest.raises(RequestError):
        OpenAIChatClient(server.base_url, "m").complete(MESSAGES)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (status(401, "no key"), "refused the API key"),
        (status(403, "<html>blocked</html>", "text/html"), "refused the API key"),
        (status(402, "Insufficient Balance"), "nothing left to spend"),
        (status(429, "You exceeded your current quota, please check your plan"), "nothing left to spend"),
        (status(400, "Unsupported value: 'temperature' does not support 0 with this model."), "leave it away"),
        (status(307, "", Location="http://elsewhere/v1/chat/completions"), "redirects to http://elsewhere/v1/chat"),
        (status(301, "", Location="/v2"), "redirects to /v2"),
        (status(404, "<html>Not Found</html>", "text/html"), "usually ends in /v1"),
    ],
)
def test_a_wrong_set_up_is_told_at_once(answer: Any, text: str) -> None:
    with openai_server(lambda request: answer) as server, pytest.raises(UserError, match=text):
        OpenAIChatClient(server.base_url, "m", first_pause=60).complete(MESSAGES)
    assert len(server.requests) == 1


def test_an_error_page_is_shortened() -> None:
    page = status(400, "<html>\n" + "very long " * 5000 + "</html>", "text/html")
    with openai_server(lambda request: page) as server, pytest.raises(RequestError) as error:
        OpenAIChatClient(server.base_url, "m").complete(MESSAGES)
    assert "<html> very long" in str(error.value)
    assert len(str(error.value)) < 500


def test_retry_after_is_waited_for() -> None:
    answers = iter([status(429, Retry_After="0.4"), status(503, Retry_After_Ms="300"), "at last"])
    with openai_server(lambda request: next(answers)) as server:
        client = OpenAIChatClient(server.base_url, "m", first_pause=0.01)
        started = time.monotonic()
        assert client.complete(MESSAGES).text == "at last"
    assert time.monotonic() - started >= 0.7


def test_retry_after_beyond_the_total_time_is_not() -> None:
    answer = status(429, "later", Retry_After="7200")
    with openai_server(lambda request: answer) as server, pytest.raises(RequestError, match="7200 s is too long"):
        OpenAIChatClient(server.base_url, "m").complete(MESSAGES)
    assert len(server.requests) == 1


def test_the_total_time_covers_all_tries() -> None:
    with openai_server(lambda request: status(500)) as server:
        client = OpenAIChatClient(server.base_url, "m", retries=10**6, first_pause=0.05, total_timeout=0.5)
        with pytest.raises(RequestError):
            client.complete(MESSAGES)
    assert 2 <= len(server.requests) <= 20


def test_a_reply_under_the_limit_of_bytes_is_whole() -> None:
    answer = body('{"choices": [{"message": {"content": "' + "x" * 1_000_000 + '"}}]}', "text/plain")
    with openai_server(lambda request: answer) as server:
        assert len(OpenAIChatClient(server.base_url, "m").complete(MESSAGES).text) == 1_000_000
