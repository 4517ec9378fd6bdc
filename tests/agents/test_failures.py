"""Back-off, Retry-After, and single requests to servers that misbehave in one way each."""

import math
import string
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_agent.agents.client import OpenAIChatClient, RequestError
from megatron_agent.agents.failures import MAX_PAUSE, pause_before, retry_after
from megatron_agent.errors import UserError
from tests.agents.misbehaviour import BROKEN, HEAD, MEGABYTE, NO_COMPLETIONS, dripping, slow
from tests.agents.openai_server import Misbehave, openai_server

MESSAGES = [{"role": "user", "content": "Hi"}]
BAD = {**NO_COMPLETIONS, **BROKEN}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_is_tried_again_and_then_told(name: str) -> None:
    with openai_server(lambda body: BAD[name]) as server:
        client = OpenAIChatClient(server.base_url, "m", retries=1, first_pause=0.01, timeout=20)
        with pytest.raises(RequestError) as error:
            client.complete(MESSAGES)
    assert len(server.requests) == 2
    assert 0 < len(str(error.value)) < 1000


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_once_does_no_harm(name: str) -> None:
    answers = iter([BAD[name], "fine"])
    with openai_server(lambda body: next(answers)) as server:
        assert OpenAIChatClient(server.base_url, "m", first_pause=0.01).complete(MESSAGES).text == "fine"


@pytest.mark.parametrize(
    "answer",
    [
        slow(5),
        dripping(b""),
        dripping(b"HTTP/1.1 200 OK\r\nX-Slow: "),
        dripping(HEAD + b"Content-Length: 9999\r\n\r\n"),
    ],
    ids=["slow", "status line", "headers", "body"],
)
def test_time_runs_out_whatever_the_server_drags_out(answer: Misbehave) -> None:
    with openai_server(lambda body: answer) as server:
        client = OpenAIChatClient(server.base_url, "m", retries=0, timeout=0.5)
        with pytest.raises(RequestError):
            client.complete(MESSAGES)


def test_a_huge_body_is_not_read_to_its_end() -> None:
    sent = 0

    def huge(handler: object) -> None:
        nonlocal sent
        handler.wfile.write(HEAD + b"Content-Length: 104857600\r\n\r\n")  # type: ignore[attr-defined]
        for _ in range(100):
            handler.wfile.write(b"x" * MEGABYTE)  # type: ignore[attr-defined]
            sent += MEGABYTE

    with openai_server(lambda body: huge) as server:
        client = OpenAIChatClient(server.base_url, "m", retries=0, max_reply_bytes=MEGABYTE)
        with pytest.raises(RequestError, match="more than 1,048,576 bytes"):
            client.complete(MESSAGES)
    assert sent < 50 * MEGABYTE


def test_a_server_that_goes_away_is_a_user_error_after_its_tries() -> None:
    with openai_server(lambda body: "ok") as server:
        client = OpenAIChatClient(server.base_url, "m", retries=1, first_pause=0.01)
        assert client.complete(MESSAGES).text == "ok"
    with pytest.raises(UserError, match="no OpenAI-compatible server answers"):
        client.complete(MESSAGES)


NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 99 Foo 2026 99:99:99 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@given(st.text(string.printable, max_size=60))
def test_any_retry_after_is_read(value: str) -> None:
    seconds = retry_after({"retry-after": value}, NOW)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


@given(st.integers(0, 5000), st.floats(0, 100), st.none() | st.floats(0, 1e6))
def test_pauses(retry: int, first: float, asked: float | None) -> None:
    pause = pause_before(retry, first, asked)
    if asked is not None:
        assert asked <= pause <= asked + first
    else:
        whole = min(first * 2.0 ** min(retry, 30), MAX_PAUSE)
        assert whole / 2 <= pause <= whole
