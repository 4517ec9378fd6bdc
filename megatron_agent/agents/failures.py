"""What a failed request means: whether to try again, when, and what to tell the user in the end."""

import email.utils
import math
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megatron_agent.agents.reply import ContextLimitError, RequestError
from megatron_agent.errors import UserError

MAX_PAUSE = 30.0
_CONTEXT_LIMIT = re.compile(
    r"context.{0,20}(length|window|limit|size)|maximum.{0,20}(tokens|length)|too long|exceed_context"
    r"|must have less than \d+ tokens|inputs. tokens \+ .max_new_tokens. must be|tokens? (count )?.{0,30}exceed"
    r"|token count .{0,30}only supports|reduce the length of the messages|max_seq_len",
    re.I,
)
_WRONG_MODEL = re.compile(r"pinned to|model.{0,80}(not found|not exist|unknown)", re.I)  # some say 400, not 404
_UNSUPPORTED = re.compile(r"unsupported[ _](parameter|value)", re.I)
_MAX_TOKENS_REFUSED = re.compile(r"\bmax_tokens\b.{0,40}not supported", re.I | re.S)
_NO_MONEY = re.compile(r"insufficient[_ ](quota|balance|credit)|exceeded your current quota", re.I)
# openai moved from httpx to its successor httpx2, whose classes have the same names
_NOT_REACHED = ("ConnectError", "ConnectTimeout", "UnsupportedProtocol", "ProxyError")


@dataclass(frozen=True)
class Failure:
    """Why a try failed: the error to raise in the end, whether a further try may help, and the server's Retry-After."""

    error: Exception
    again: bool
    retry_after: float | None = None


def read_failure(error: Exception, base_url: str, model: str) -> Failure:
    """Return what an exception of `openai`, a TimeoutError or a RequestError (a reply that is none) means."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return _read_status(error, base_url, model)
    if isinstance(error, openai.APIConnectionError):  # time-outs too
        if type(error.__cause__).__name__ in _NOT_REACHED:
            return Failure(UserError(_not_there(error, base_url, model)), again=True)
        return Failure(RequestError(f"the connection broke: {error.__cause__ or error!r}"), again=True)
    if isinstance(error, TimeoutError):
        return Failure(RequestError(str(error)), again=True)
    if isinstance(error, RequestError):
        return Failure(error, again=True)
    return Failure(RequestError(_line(error)), again=False)


def _read_status(error: Any, base_url: str, model: str) -> Failure:
    status = error.status_code
    text = _line(error if isinstance(error.body, dict) else error.response.text)  # openai's message holds JSON only
    if status in (401, 403):
        return Failure(UserError(f"{base_url} refused the API key: {text}; pass the right one"), again=False)
    if status == 402 or (status == 429 and _NO_MONEY.search(text)):
        return Failure(UserError(f"{base_url}: the account has nothing left to spend: {text}"), again=False)
    if 300 <= status < 400:
        there = error.response.headers.get("location", "an address it does not name")
        return Failure(UserError(f"--base-url {base_url}: the server redirects to {there}; pass that address"), False)
    if status in (400, 413, 422) and _CONTEXT_LIMIT.search(text):
        return Failure(ContextLimitError(text), again=False)
    if status == 404 or (status == 400 and _WRONG_MODEL.search(text)):
        return Failure(
            UserError(
                f"{base_url} does not know this address or the model {model!r}: {text}; the base URL usually ends in "
                "/v1, and the model is the name the server was started with"
            ),
            again=False,
        )
    if status in (400, 422) and _UNSUPPORTED.search(text):
        mend = "leave it away (a temperature is sent unless it is none)"
        return Failure(UserError(f"{base_url} refuses an option of every request: {text}; {mend}"), again=False)
    again = status in (408, 409, 425, 429) or status >= 500
    return Failure(RequestError(f"status {status}: {text}"), again, retry_after(error.response.headers, time.time()))


def refuses_max_tokens(error: Exception) -> bool:
    """Whether the server wants `max_completion_tokens` in place of `max_tokens`, as OpenAI's newer models do."""
    return getattr(error, "status_code", None) == 400 and bool(_MAX_TOKENS_REFUSED.search(str(error)[:2000]))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds a server asks to wait (RFC 9110, section 10.2.3), None when it names none.

    `retry-after-ms`, which OpenAI and Azure send, goes before `retry-after`, seconds or a date; `now` is Unix time.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
            except (ValueError, TypeError, IndexError, OverflowError):
                continue
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    return None


def pause_before(retry: int, first: float, asked: float | None) -> float:
    """Return the seconds to wait before further try number `retry` (from 0).

    Exponential back-off: `first` * 2^retry, at most `MAX_PAUSE`, of which a random part of up to half is left away,
    so that episodes refused together do not come back together. When the server asked for a time, it is waited
    for in full, plus a random part of `first`.
    """
    if asked is not None:
        return asked + first * random.random()
    return min(first * 2.0 ** min(retry, 30), MAX_PAUSE) * (1 - random.random() / 2)


def _not_there(error: Exception, base_url: str, model: str) -> str:
    return (
        f"no OpenAI-compatible server answers at {base_url} ({error.__cause__ or error}); start one, e.g. "
        f"`transformers serve {model} --device cpu --host 127.0.0.1 --port 8000`, and pass its address "
        "with --base-url http://127.0.0.1:8000/v1"
    )


def _line(error: Exception | str) -> str:
    """Return an error's text on one line of readable length; some servers send a page."""
    return " ".join(str(error)[:2000].split())[:400]
