"""A MariaDB server of the tests' own, on loopback, for as long as the session lasts."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from megatron_agent.environments.database import Table

if TYPE_CHECKING:
    from megatron_agent.environments.database.server import DatabaseServer

TABLE = Table("my % table", ("a b", "Win %"), (("x", "9"), ("Y", "10"), ("z", None)))


@dataclass(frozen=True)
class MariaDb:
    """The running server: its port, its socket, and a user that may do everything."""

    port: int
    socket: Path
    user: str = "agent"
    password: str = "pass:word/1"

    @property
    def url(self) -> str:
        """The address as `--database-url` takes it, the password escaped."""
        return f"mysql://{self.user}:pass%3Aword%2F1@127.0.0.1:{self.port}"

    def left_behind(self) -> list[list[str]]:
        """Return the databases and users of runs that are still there."""
        pattern = r"agentlm\_run\_%"
        return self.run(
            f"select schema_name from information_schema.schemata where schema_name like '{pattern}' union all "
            f"select user from mysql.user where user like '{pattern}'"
        )

    def run(self, sql: str) -> list[list[str]]:
        """Run statements as the superuser with the server's own client; returns the rows."""
        client = ["mariadb", "--no-defaults", "-S", str(self.socket), "-uroot", "--batch", "--skip-column-names"]
        done = subprocess.run(client, input=sql, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.fixture
def server(mariadb: MariaDb) -> "Iterator[DatabaseServer]":
    """A run of at most 8 episodes at once on it."""
    from megatron_agent.environments.database.connections import parse_database_url
    from megatron_agent.environments.database.server import open_server

    with open_server(parse_database_url(mariadb.url), connections=8) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """Start MariaDB on a free port (0.2 s, its files 2 s); skips where it is not installed."""
    path = os.environ["PATH"] + ":/usr/sbin"  # where Debian keeps servers, not on every user's PATH
    programs = {name: shutil.which(name, path=path) for name in ("mariadbd", "mariadb-install-db", "mariadb")}
    missing = [name for name, program in programs.items() if program is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found; apt-get install mariadb-server")
    folder = Path(tempfile.mkdtemp(prefix="agentlm_mariadb_", dir=in_memory()))
    owner = []
    if os.geteuid() == 0:  # the server refuses to run as the superuser
        owner = ["--user=mysql"]
        shutil.chown(folder, "mysql", "mysql")
    data = f"--datadir={folder}/data"
    subprocess.run(
        [str(programs["mariadb-install-db"]), "--no-defaults", *owner, data, "--skip-test-db",
         "--auth-root-authentication-method=normal"],
        check=True, capture_output=True,
    )  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = MariaDb(port, folder / "socket")
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [str(programs["mariadbd"]), "--no-defaults", *owner, data, f"--socket={server.socket}",
             f"--pid-file={folder}/pid", f"--port={port}", "--bind-address=127.0.0.1", "--skip-log-bin",
             "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M",
             "--performance-schema=OFF"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_for(server, process, folder / "log")
        accounts = [f"'{server.user}'@'{host}'" for host in ("localhost", "127.0.0.1")]
        for account in accounts:
            server.run(f"create user {account} identified by '{server.password}'")
            server.run(f"grant all on *.* to {account} with grant option")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)
        shutil.rmtree(folder)


def in_memory() -> Path | None:
    """Where the server's files cost no disk: it syncs every one of some thousand tables. None if there is no room."""
    folder = Path("/dev/shm")
    roomy = folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 1 << 30
    return folder if roomy else None


def wait_for(server: MariaDb, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers, 60 s at most."""
    end = time.monotonic() + 60
    while True:
        try:
            server.run("select 1")
            return
        except AssertionError:
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"MariaDB did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
