"""How requests travel: one event loop for all threads, and bodies that stop at a number of bytes."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from megatron_agent.agents.reply import RequestError

Answer = TypeVar("Answer")

_LOCK = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_REBUILT_HEADERS = ("content-encoding", "content-length", "transfer-encoding")


def request_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop that carries all requests of this program; it runs in a daemon thread of its own.

    Episodes wait for it in their threads. Requests on a loop can be given up at any moment, so that a time limit or
    Ctrl-C ends one that a server drags out, whatever it is doing.
    """
    global _loop
    with _LOCK:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="chat requests", daemon=True).start()
        return _loop


def send(request: Coroutine[Any, Any, Answer]) -> "Future[Answer]":
    """Run a request on the loop; cancelling the future ends it.

    An exception that comes while the future is being cancelled is nobody's: asyncio would print it as never retrieved.
    """

    async def run() -> Answer:
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await request

    return asyncio.run_coroutine_threadsafe(run(), request_loop())


def _forget_loop() -> None:
    """In a forked process, where the loop's thread is not, make requests start a loop of their own."""
    global _LOCK, _loop
    _LOCK, _loop = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_loop)


def bounded_http_client(max_bytes: int) -> Any:
    """Return an HTTP client for `openai.AsyncOpenAI` that reads at most `max_bytes` of any body, errors included.

    A longer body raises RequestError. Redirects are answers, not followed: one of a POST would turn it into a GET.
    """
    import openai

    class BoundedClient(openai.DefaultAsyncHttpxClient):
        async def send(self, request: Any, **options: Any) -> Any:
            response = await super().send(request, **{**options, "stream": True})
            body = bytearray()
            try:
                async for block in response.aiter_bytes():
                    body += block
                    if len(body) > max_bytes:
                        raise RequestError(f"a reply of more than {max_bytes:,} bytes (status {response.status_code})")
            finally:
                await response.aclose()
            headers = [(name, value) for name, value in response.headers.items() if name not in _REBUILT_HEADERS]
            return type(response)(response.status_code, headers=headers, content=bytes(body), request=request)

    return BoundedClient(follow_redirects=False)
