"""What a server can do wrong, for `openai_server`: each takes the handler of a request and writes to its socket."""

import json
import socket
import struct
import time
from http.server import BaseHTTPRequestHandler

from tests.agents.openai_server import Misbehave, completion

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
"""`openai_server` closes after misbehaviour; a client that is not told may send its next request into the void."""
MEGABYTE = 1 << 20


def status(code: int, message: str = "refused", content_type: str = "application/json", **headers: str) -> Misbehave:
    """An error; `headers` with underscores for dashes."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        body = message if content_type != "application/json" else json.dumps({"error": {"message": message}})
        lines = [
            f"HTTP/1.1 {code} Error",
            "Connection: close",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body)}",
        ]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        handler.wfile.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    return write


def slow(seconds: float) -> Misbehave:
    """A good answer, too late."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        body = json.dumps(completion("late")).encode()
        handler.wfile.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    return write


def dripping(start: bytes) -> Misbehave:
    """`start`, then a byte every 50 ms without end: silence never lasts long enough for a read time-out."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(start)
        for _ in range(400):
            time.sleep(0.05)
            handler.wfile.write(b"x")

    return write


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    """Half of an answer, then the end of the connection."""
    body = json.dumps(completion("half")).encode()
    handler.wfile.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[: len(body) // 2])


def cut_off_chunks(handler: BaseHTTPRequestHandler) -> None:
    """A chunked answer whose last chunk never comes."""
    handler.wfile.write(HEAD + b'Transfer-Encoding: chunked\r\n\r\n10\r\n{"choices": [{"m\r\n')


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Half of an answer, then RST."""
    handler.wfile.write(HEAD + b'Content-Length: 1000\r\n\r\n{"choices"')
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """No answer at all."""


def garbage(handler: BaseHTTPRequestHandler) -> None:
    """No HTTP."""
    handler.wfile.write(b"\x00\x01SSH-2.0-nonsense\r\n\r\n")


def broken_gzip(handler: BaseHTTPRequestHandler) -> None:
    """A body that says it is compressed and is not."""
    handler.wfile.write(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd")


def huge(megabytes: int, code: int = 200) -> Misbehave:
    """A well-formed answer of many megabytes, sent as fast as it is taken."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        start = b'{"choices": [{"message": {"role": "assistant", "content": "'
        length = len(start) + megabytes * MEGABYTE + 4
        head = HEAD.replace(b"200 OK", b"%d Huge" % code) + b"Content-Length: %d\r\n\r\n" % length
        handler.wfile.write(head + start)
        for _ in range(megabytes):
            handler.wfile.write(b"x" * MEGABYTE)
        handler.wfile.write(b'"}}]')

    return write


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Chunks for ever."""
    handler.wfile.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def body(text: str, content_type: str = "application/json") -> Misbehave:
    """Status 200 with any text."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        data = text.encode()
        head = HEAD.replace(b"application/json", content_type.encode())
        handler.wfile.write(head + b"Content-Length: %d\r\n\r\n" % len(data) + data)

    return write


NO_COMPLETIONS = {
    "no JSON": body("not json"),
    "half JSON": body('{"choices": [{"message": {"role": "assis'),
    "HTML": body("<html><body>Please log in</body></html>", "text/html"),
    "null": body("null"),
    "list": body("[]"),
    "text": body('"hello"'),
    "error with status 200": body('{"error": {"message": "overloaded"}}'),
    "no choices": body("{}"),
    "empty choices": body('{"choices": []}'),
    "null choices": body('{"choices": null}'),
    "choice without message": body('{"choices": [{"text": "the old interface"}]}'),
    "message without content": body('{"choices": [{"message": {}}]}'),
    "message of text": body('{"choices": [{"message": "the role of content"}]}'),
    "content of parts": body('{"choices": [{"message": {"content": [{"type": "text", "text": "hi"}]}}]}'),
    "content a number": body('{"choices": [{"message": {"content": 7}}]}'),
    "deep JSON": body("[" * 100_000),
    "not UTF-8": lambda handler: handler.wfile.write(HEAD + b'Content-Length: 5\r\n\r\n"\xff\xfe"'),
}
"""Answers with status 200 that are no chat completion."""

BROKEN = {
    "cut off": cut_off,
    "cut off chunks": cut_off_chunks,
    "reset": reset,
    "hang up": hang_up,
    "garbage": garbage,
    "broken gzip": broken_gzip,
    "huge": huge(50),
    "huge error": huge(50, code=500),
    "endless": endless,
    "status 500": status(500),
    "status 429": status(429),
    "status 408": status(408),
    "HTML with status 502": status(502, "<html>" + "Bad Gateway " * 200 + "</html>", "text/html"),
}
"""Failures of the connection, of size and of the server, which a further try may mend."""
