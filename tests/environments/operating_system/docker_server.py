"""A server on a Unix socket that speaks as much of the Docker Engine's HTTP protocol as the Docker sandbox uses.

It runs what it is asked to run as ordinary processes of this machine, in place of a container: for harmless commands.
"""

import json
import os
import re
import socketserver
import struct
import subprocess
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class Engine(socketserver.ThreadingUnixStreamServer):
    """Remembers containers and what was asked; `images` are those it has."""

    daemon_threads = True

    def __init__(self, path: Path, images: tuple[str, ...] = ("local-os/default",)) -> None:
        self.images = images
        self.containers: dict[str, dict[str, Any]] = {}
        self.executions: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.created: list[dict[str, Any]] = []
        super().__init__(str(path), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: object = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def respond(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        path = re.sub(r"^/v1\.\d+", "", self.path.partition("?")[0])
        self.server.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        match (self.command, *parts):
            case ("GET", "_ping"):
                self.answer(200, "OK")
            case ("GET", "version"):
                self.answer(200, {"ApiVersion": "1.44", "Version": "25.0"})
            case ("GET", "containers", "json"):
                self.answer(200, [{"Id": name} for name in self.server.containers])
            case ("POST", "containers", "create"):
                if body["Image"] not in self.server.images:
                    self.answer(404, {"message": f"No such image: {body['Image']}"})
                    return
                name = f"c{len(self.server.created)}"
                self.server.created.append(body)
                self.server.containers[name] = body
                self.answer(201, {"Id": name, "Warnings": []})
            case ("POST", "images", "create"):
                self.answer(404, {"message": "pull access denied"})
            case ("POST", "containers", name, "start") if name in self.server.containers:
                self.answer(204)
            case ("GET", "containers", name, "json") if name in self.server.containers:
                config = {"Labels": self.server.containers[name].get("Labels", {})}
                self.answer(200, {"Id": name, "Config": config, "State": {"Status": "running"}, "Image": "i"})
            case ("DELETE", "containers", name) if name in self.server.containers:
                del self.server.containers[name]
                self.answer(204)
            case ("POST", "containers", name, "exec") if name in self.server.containers:
                execution = f"e{len(self.server.executions)}"
                self.server.executions[execution] = body
                self.answer(201, {"Id": execution})
            case ("POST", "exec", execution, "start"):
                self.attach(self.server.executions[execution])
            case ("GET", "exec", execution, "json"):
                self.answer(200, {"ID": execution, "ExitCode": self.server.executions[execution].get("code")})
            case _:
                self.answer(404, {"message": f"no such thing: {path}"})

    do_GET = do_POST = do_DELETE = respond  # noqa: N815 - the names that http.server calls

    def attach(self, execution: dict[str, Any]) -> None:
        """Hijack the connection: bytes to the command's input, framed output back."""
        self.close_connection = True
        self.wfile.write(
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        process = subprocess.Popen(
            execution["Cmd"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        if execution.get("AttachStdin"):
            threading.Thread(target=self.feed, args=(process.stdin,), daemon=True).start()
        else:
            process.stdin.close()
        while part := os.read(process.stdout.fileno(), 4096):
            try:
                self.wfile.write(struct.pack(">BxxxL", 1, len(part)) + part)
            except OSError:
                break
        process.stdout.close()
        execution["code"] = process.wait()

    def feed(self, stdin: Any) -> None:
        try:
            while part := self.connection.recv(4096):
                stdin.write(part)
                stdin.flush()
            stdin.close()
        except (OSError, ValueError):
            return
