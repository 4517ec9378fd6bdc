"""A chat client for any OpenAI-compatible server (transformers serve, vLLM, TGI, the hosted ones)."""

import asyncio
import hashlib
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from threading import Lock
from typing import Any, Protocol, runtime_checkable

from megatron_agent.agents.failures import MAX_PAUSE, pause_before, read_failure, refuses_max_tokens
from megatron_agent.agents.reply import ContextLimitError, Prices, Reply, RequestError, encodable, read_completion
from megatron_agent.agents.transport import bounded_http_client, send
from megatron_agent.environments.base import Message, Task
from megatron_agent.errors import UserError

__all__ = [
    "ChatClient",
    "ContextLimitError",
    "OpenAIChatClient",
    "Prices",
    "Reply",
    "RequestError",
    "ScriptedClient",
    "Stoppable",
    "episode_seed",
]


class ChatClient(Protocol):
    """What the episode loop needs of a model. Called from several threads at once."""

    def complete(self, messages: Sequence[Message]) -> Reply:
        """Return the model's reply to a conversation that ends on a user message."""


@runtime_checkable
class Stoppable(Protocol):
    """A chat client of one episode whose running request can be given up."""

    def stop(self) -> None:
        """End the running request and refuse further ones: `complete` raises CancelledError. For any thread."""


class ScriptedClient:
    """A client whose replies come from a function of the messages: scripted experts, tests."""

    def __init__(self, respond: Callable[[Sequence[Message]], str]) -> None:
        self._respond = respond

    def complete(self, messages: Sequence[Message]) -> Reply:
        return Reply(self._respond(messages))


class OpenAIChatClient:
    """Chat completions over the `openai` package; greedy by default, as in the paper.

    Message contents are sent stripped: training strips them (`chat/template.py`), as AgentTuning's own client did. Lone
    surrogates in them are sent as U+FFFD, as those of replies are read.
    Options of sampling that are None are not sent, which leaves them to the server: most then sample at temperature 1.
    `extra_body` holds further fields for the request (vLLM's `top_k`, ...).

    Time limits in seconds: `connect_timeout` for reaching the server, `timeout` for one try from its start to the
    last byte, `total_timeout` for a request with all its tries and pauses (default: 600, or more where these need
    more). A reply may have `max_reply_bytes`.

    Lost connections, time-outs, the statuses 408, 409, 425, 429 and 5xx, and replies that are no chat completion
    are tried again up to `retries` times, after the time the server asks for, else `first_pause` seconds and twice
    as many each time. Then: UserError when the server is not there, does not know the model or the address, refuses
    the key or an option, or the account is spent; ContextLimitError when the prompt is too long; RequestError
    otherwise.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str = "none",
        max_tokens: int = 128,
        temperature: float | None = 0.0,
        timeout: float = 120.0,
        retries: int = 3,
        *,
        top_p: float | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
        prices: Prices | None = None,
        connect_timeout: float = 10.0,
        total_timeout: float | None = None,
        first_pause: float = 0.5,
        max_reply_bytes: int = 4 << 20,
    ) -> None:
        import openai

        if not _is_http_address(base_url):
            raise UserError(
                f"--base-url: expected an http(s) address such as http://127.0.0.1:8000/v1, got {base_url!r}"
            )
        if not re.fullmatch(r"[!-~]+", api_key):  # what a header can carry; the message does not show it
            raise UserError("the API key must be of visible ASCII characters; without a key leave --api-key away")
        self.base_url = base_url
        self.model = encodable(model)
        self.max_tokens = max_tokens
        self.seed = seed
        self.prices = prices
        self.timeout = timeout
        self.total_timeout = total_timeout or max(600.0, (retries + 1) * (timeout + MAX_PAUSE))
        self.retries = retries
        self.first_pause = first_pause
        options = {"temperature": temperature, "top_p": top_p, "stop": list(stop) or None}
        self._options = {**{name: value for name, value in options.items() if value is not None}, **(extra_body or {})}
        self._tokens_field = "max_tokens"
        try:
            http_client = bounded_http_client(max_reply_bytes)
        except (ImportError, ValueError, OSError) as error:
            raise UserError(
                "no connection can be made with the proxy or the certificates that the environment names (ALL_PROXY, "
                f"HTTPS_PROXY, HTTP_PROXY, SSL_CERT_FILE): {error}; unset or mend them"
            ) from error
        self._openai = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            timeout=openai.Timeout(timeout, connect=connect_timeout),
            max_retries=0,
            http_client=http_client,
        )

    def for_task(self, task: Task) -> "EpisodeClient":
        """Return the client of one episode: with the task's own seed, and a way to give up its request."""
        return EpisodeClient(self, episode_seed(self.seed, task.id))

    def complete(self, messages: Sequence[Message]) -> Reply:
        return self.start(messages, self.seed).result()

    def start(self, messages: Sequence[Message], seed: int | None) -> "Future[Reply]":
        """Send a conversation and return at once; cancelling the future ends the request."""
        return send(self._in_time(messages, seed))

    async def _in_time(self, messages: Sequence[Message], seed: int | None) -> Reply:
        try:
            return await asyncio.wait_for(self._with_retries(messages, seed), self.total_timeout)
        except asyncio.TimeoutError as error:
            raise RequestError(f"no answer within {self.total_timeout} s, further tries included") from error

    async def _with_retries(self, messages: Sequence[Message], seed: int | None) -> Reply:
        import openai

        started, retry = time.monotonic(), 0
        while True:
            tokens_field = self._tokens_field
            try:
                body = await asyncio.wait_for(self._try(messages, seed, tokens_field), self.timeout)
                return read_completion(body, self.prices, time.monotonic() - started)
            except asyncio.TimeoutError:
                failure = read_failure(TimeoutError(f"no answer within {self.timeout} s"), self.base_url, self.model)
            except (openai.OpenAIError, RequestError) as error:
                if tokens_field == "max_tokens" and refuses_max_tokens(error):
                    self._tokens_field = "max_completion_tokens"
                    continue
                failure = read_failure(error, self.base_url, self.model)
                failure.error.__cause__ = error if failure.error is not error else error.__cause__
            if not failure.again or retry == self.retries:
                raise failure.error
            pause = pause_before(retry, self.first_pause, failure.retry_after)
            if time.monotonic() - started + pause > self.total_timeout:
                raise RequestError(f"{failure.error}; no further try: the next pause of {pause:.0f} s is too long")
            await asyncio.sleep(pause)
            retry += 1

    async def _try(self, messages: Sequence[Message], seed: int | None, tokens_field: str) -> bytes:
        """Return the body of the answer; `chat.completions.create` would spend 1 ms on types it does not check."""
        request = {
            "model": self.model,
            "messages": [{**message, "content": encodable(message["content"].strip())} for message in messages],
            tokens_field: self.max_tokens,
            **({} if seed is None else {"seed": seed}),
            **self._options,
        }
        return await self._openai.post("/chat/completions", cast_to=bytes, body=request)


class EpisodeClient:
    """One episode's view of an :class:`OpenAIChatClient`."""

    def __init__(self, client: OpenAIChatClient, seed: int | None) -> None:
        self.client = client
        self.seed = seed
        self._lock = Lock()
        self._stopped = False
        self._running: Future[Reply] | None = None

    def complete(self, messages: Sequence[Message]) -> Reply:
        with self._lock:
            if self._stopped:
                raise CancelledError
            self._running = self.client.start(messages, self.seed)
        return self._running.result()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._running is not None:
                self._running.cancel()


def _is_http_address(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and text.isprintable()
    except ValueError:  # a port above 65535, a bracket without its other
        return False


def episode_seed(seed: int | None, task_id: str) -> int | None:
    """Return the seed of a task's requests: the same in every run, another for every task; 31 bits, as all take."""
    if seed is None:
        return None
    digest = hashlib.sha256(f"{seed}:{task_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1
