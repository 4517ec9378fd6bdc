"""A local server that speaks as much of the Hugging Face Hub's protocol as a data set's download needs."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server has and what it was asked for."""

    endpoint: str
    files: dict[str, bytes]
    asked: list[str] = field(default_factory=list)


@contextmanager
def serve_hub(name: str, files: dict[str, bytes]) -> Iterator[Hub]:
    """Serve the data set `name` with `files` (path to content); its branches are `main` and `v1`.

    Every other data set is missing, `private/data` needs a login, `gated/data` needs its owner's permission.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(send_body=False)

        def do_GET(self) -> None:
            self.answer(send_body=True)

        def answer(self, send_body: bool) -> None:
            hub.asked.append(self.path)
            status, headers, body = 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
            path = self.path.partition("?")[0]
            if path.startswith((f"/api/datasets/{name}/revision/main", f"/api/datasets/{name}/revision/v1")):
                siblings = [{"rfilename": file} for file in files]
                status, headers = 200, {}
                body = json.dumps({"id": name, "sha": COMMIT, "siblings": siblings, "private": False}).encode()
            elif path.startswith(f"/api/datasets/{name}/revision/"):
                headers = {"X-Error-Code": "RevisionNotFound"}
            elif path.startswith(f"/api/datasets/{name}/tree/{COMMIT}"):
                tree = [{"type": "file", "path": file, "size": len(data), "oid": file} for file, data in files.items()]
                status, headers, body = 200, {}, json.dumps(tree).encode()
            elif path.startswith(f"/datasets/{name}/resolve/{COMMIT}/"):
                file = path.rpartition(f"{COMMIT}/")[2]
                status, headers = 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{Path(file).name}"'}
                body = files[file]
            elif path.startswith("/api/datasets/private/"):
                status, headers = 401, {"X-Error-Code": "RepoNotFound"}
            elif path.startswith("/api/datasets/gated/"):
                status, headers = 403, {"X-Error-Code": "GatedRepo"}
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if send_body:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}", files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
