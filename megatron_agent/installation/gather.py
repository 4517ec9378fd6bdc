"""The board on which ranks leave notes for one another: a TCPStore that rank 0 hosts on MASTER_PORT."""

import json
import os
import resource
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from megatron_agent.installation.place import Place
from megatron_agent.installation.ports import port_problem

POLL_SECONDS = 0.05
CONNECT_SECONDS = 5.0
CLOCK = "clock"


class CutOffError(Exception):
    """This rank cannot reach the others, or rank 0 cannot be reached: the message says where and what to change."""


@dataclass
class Board:
    """Notes by name. Values are plain JSON."""

    store: dist.Store

    def write(self, name: str, value: Any) -> None:
        """Write a note, or replace it."""
        self.store.set(name, json.dumps(value))

    def claim(self, name: str, value: Any) -> bool:
        """Write a note that is not there yet; False when another has written it."""
        text = json.dumps(value)
        return bool(self.store.compare_set(name, "", text) == text.encode())

    def read(self, name: str) -> Any:
        """Return a note; None when it is not there."""
        return json.loads(self.store.get(name)) if self.store.check([name]) else None


def open_board(place: Place, timeout: float) -> Board:
    """Host the board (rank 0), or join it; waits for rank 0 up to `timeout` seconds.

    Raises :class:`CutOffError` when rank 0's port is in use or rank 0 cannot be reached.
    """
    if place.rank == 0:
        _allow_many_files()
        problem = port_problem(place.port) if place.port else None
        if problem is not None:
            raise CutOffError(problem)
        address = "127.0.0.1"  # of itself: its public name may not lead back to it
    else:
        address = place.address
        _wait_for_port(place, timeout)
    try:
        store = dist.TCPStore(
            address, place.port, None, place.rank == 0, timedelta(seconds=timeout), wait_for_workers=False
        )
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CutOffError(f"no connection to rank 0 at {address}:{place.port}: {reason}") from error
    return Board(dist.PrefixStore(_name_of_step(), store))


def second_connection(place: Place, board: Board, timeout: float) -> dist.Store:
    """Return a store of its own connection, for a library or a thread that may block on it."""
    first = board.store.underlying_store
    assert isinstance(first, dist.TCPStore)
    address = "127.0.0.1" if place.rank == 0 else place.address
    store = dist.TCPStore(address, first.port, None, False, timedelta(seconds=timeout), wait_for_workers=False)
    return dist.PrefixStore(_name_of_step(), store)


def _name_of_step() -> str:
    """A name that two jobs which meet on one port by mistake do not share."""
    return ".".join(["preflight", *(os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))])


def _allow_many_files() -> None:
    """Raise this process's limit of open files as far as it may: rank 0 holds two connections of every rank."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _wait_for_port(place: Place, timeout: float) -> None:
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((place.address, place.port), CONNECT_SECONDS).close()
            return
        except OSError as error:
            reason = error.strerror or str(error)
        if time.monotonic() > end:
            raise CutOffError(
                f"rank 0 at {place.address}:{place.port} not reached within {timeout:g} s ({reason}): MASTER_ADDR must "
                "be rank 0's node by a name that this node knows, and no firewall may lie between them"
            )
        time.sleep(0.2)


def collect(board: Board, name: str, ranks: Iterable[int], timeout: float) -> tuple[dict[int, Any], list[int]]:
    """Return the notes `NAME/RANK` of `ranks`, and the ranks that left none.

    A rank counts as missing when it left no note and gave no new sign of life (`sign_of_life`) for `timeout` seconds.
    """
    answers: dict[int, Any] = {}
    last_sign = {rank: (time.monotonic(), board.read(f"alive/{rank}")) for rank in ranks}
    missing = []
    while last_sign:
        for rank in list(last_sign):
            answer = board.read(f"{name}/{rank}")
            since, sign = last_sign[rank]
            if answer is not None:
                answers[rank] = answer
                del last_sign[rank]
            elif time.monotonic() - since > timeout:
                newer = board.read(f"alive/{rank}")
                if newer == sign:
                    missing.append(rank)
                    del last_sign[rank]
                else:
                    last_sign[rank] = (time.monotonic(), newer)
        time.sleep(POLL_SECONDS)
    return answers, sorted(missing)


def sign_of_life(board: Board, rank: int) -> Callable[[], None]:
    """Return a function to call while long work makes progress; it writes at most once a second."""
    last = -1.0

    def alive() -> None:
        nonlocal last
        if time.monotonic() - last > 1:
            last = time.monotonic()
            board.write(f"alive/{rank}", last)

    return alive


def wait_for_rank_0(board: Board, name: str, still_there: Callable[[], None]) -> Any:
    """Return the note `name` as soon as rank 0 has written it.

    `still_there` is called at the start and whenever rank 0's clock has gone on since. Raises torch's DistError when
    the connection is lost.
    """
    clock, looked = None, 0.0
    still_there()
    while (note := board.read(name)) is None:
        if time.monotonic() - looked > 1:
            looked, seen = time.monotonic(), board.read(CLOCK)
            if seen != clock:
                clock = seen
                still_there()
        time.sleep(POLL_SECONDS)
    return note
