"""A local HTTP server that speaks the chat-completions protocol."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Respond = Callable[[dict[str, Any]], "str | tuple[int, dict[str, Any]] | bytes"]


@dataclass
class RunningServer:
    """Its address, and the request bodies it got."""

    base_url: str
    requests: list[dict[str, Any]] = field(default_factory=list)


@contextlib.contextmanager
def openai_server(respond: Respond) -> Iterator[RunningServer]:
    """Serve on a free loopback port; `respond` maps a request body to a text, (status, JSON) or raw bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            running.requests.append(body)
            answer = respond(body) if self.path == "/v1/chat/completions" else (404, {"error": "no such path"})
            status, payload = (200, completion(answer)) if isinstance(answer, str) else (200, answer)
            if isinstance(answer, tuple):
                status, payload = answer
            data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
            with contextlib.suppress(ConnectionError):  # a client that was stopped does not wait for the answer
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = RunningServer(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: str) -> dict[str, Any]:
    """A chat completion as servers send it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "local",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}},
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }
