"""A local HTTP server that speaks the chat-completions protocol."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Misbehave = Callable[[BaseHTTPRequestHandler], None]
Respond = Callable[[dict[str, Any]], "str | tuple[int, dict[str, Any]] | bytes | Misbehave"]


@dataclass
class RunningServer:
    """Its address, the request bodies it got, and how to end it early."""

    base_url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    stop: Callable[[], None] = lambda: None


class Server(ThreadingHTTPServer):
    """Closes what it has accepted when it ends, as a server that dies does."""

    request_queue_size = 256

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections: list[Any] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


@contextlib.contextmanager
def openai_server(respond: Respond) -> Iterator[RunningServer]:
    """Serve on a free loopback port; `respond` maps a request body to a text, (status, JSON) or raw bytes.

    A function in their place gets the handler and writes what it likes (`misbehaviour.py`).
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            running.requests.append(body)
            answer = respond(body) if self.path == "/v1/chat/completions" else (404, {"error": "no such path"})
            if callable(answer):
                with contextlib.suppress(OSError):
                    answer(self)
                self.close_connection = True
                return
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

    server = Server(("127.0.0.1", 0), Handler)
    running = RunningServer(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    running.stop = stop
    try:
        yield running
    finally:
        stop()


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
