"""The rounds of a preflight: meet on rank 0's board, report, all-reduce, hear the verdict. Every rank ends alike."""

import os
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch.distributed as dist

from megatron_agent.installation import clocks
from megatron_agent.installation.all_reduce import STAGES, AllReduce, all_reduce, all_reduce_within
from megatron_agent.installation.all_reduce_verdict import note_all_reduce
from megatron_agent.installation.gather import (
    CLOCK,
    Board,
    CutOffError,
    collect,
    open_board,
    second_connection,
    sign_of_life,
    wait_for_rank_0,
)
from megatron_agent.installation.limits import HardLimit
from megatron_agent.installation.node_report import (
    RankReport,
    Request,
    examine_rank,
    report_as_json,
    report_from_json,
)
from megatron_agent.installation.place import VARIABLES, Arrival, Place, expected_nodes, problems_of_arrivals
from megatron_agent.installation.shared_folder import SharedFolder
from megatron_agent.installation.try_import import first_line
from megatron_agent.installation.verdict import (
    Demands,
    NodeVerdict,
    failed,
    judge,
    node_lines,
    nodes_of,
    verdict_line,
)

FAREWELL_SECONDS = 5.0
"""Rank 0 waits this long for the others to hear the verdict before its board, and the port, are gone."""
OTHER_ERRORS_SECONDS = 3.0
"""When one rank has met an error, the others have this long to tell theirs."""
GRACE_SECONDS = 5.0
"""Ranks reach a time limit about this far apart at most."""


@dataclass(frozen=True)
class Outcome:
    """How a preflight ended."""

    ok: bool
    hung: bool
    """The all-reduce still hangs in a thread: only `os._exit` ends this process."""


class Rounds:
    """One rank's way through a preflight."""

    def __init__(self, place: Place, request: Request, demands: Demands, timeout: float) -> None:
        self.place, self.request, self.demands, self.timeout = place, request, demands, timeout
        self.started = time.monotonic()
        self.limit = HardLimit(f"FAILED on {place.node}" if place.rank == 0 else str(place))

    def run(self) -> Outcome:
        """Go through all rounds; raises `CutOffError` when the others cannot be reached."""
        self.limit.arm(2 * self.timeout + GRACE_SECONDS, "no meeting with rank 0 came about: see what it says")
        board = open_board(self.place, self.timeout)
        self._arrive(board)
        self.limit.disarm()
        try:
            return self._lead(board) if self.place.rank == 0 else self._follow(board)
        except dist.DistError as error:
            raise CutOffError(f"the connection to rank 0 was lost ({str(error).splitlines()[0]})") from error
        finally:
            self.limit.disarm()

    def _arrive(self, board: Board) -> None:
        """Say that this rank is there; raises `CutOffError` when another task has its number."""
        place = self.place
        arrival = Arrival(place.node, place.local_rank, place.world_size, process=os.urandom(8).hex())
        if not board.claim(f"node/{place.rank}", asdict(arrival)):
            other = board.read(f"node/{place.rank}")["node"]
            raise CutOffError(f"RANK={place.rank} is that of another task, on {other}: {VARIABLES}")
        if place.rank > 0 and place.rank >= (expected := self._hear(board, "node/0")["world_size"]):
            raise CutOffError(f"WORLD_SIZE={place.world_size} here, {expected} on rank 0: {VARIABLES}")

    def _lead(self, board: Board) -> Outcome:
        """Rank 0: report as the others do, then judge."""
        clock_board = Board(second_connection(self.place, board, self.timeout))
        clock = clocks.ClockOfRank0(lambda time: clock_board.write(CLOCK, time))
        folder = self._folder(board)
        try:
            self._report(board, folder, lambda: 0.0)
            nodes, absent = self._judged(board)
            self._expect_progress()
            folder.close()  # before the verdict, at which srun may end us
            self.limit.disarm()
            hung = False
            stopped = bool(failed(nodes))
            board.write("next", "verdict" if stopped else "all-reduce")
            if not stopped:
                end = time.monotonic() + self.timeout
                result = self._all_reduce(board, lambda: self._any_error(board))
                board.write("reduced/0", asdict(result))
                absent += self._note_all_reduce(board, nodes, end)
                hung = result.hung
            return self._announce(board, nodes, absent, hung)
        finally:
            folder.close()
            clock.stop()

    def _follow(self, board: Board) -> Outcome:
        """Any other rank: report, take part, hear the verdict."""
        rank = self.place.rank
        self._report(board, self._folder(board), lambda: self._clock_offset(board))
        hung = False
        if self._hear(board, "next") == "all-reduce":
            result = self._all_reduce(board, lambda: board.read("stop") is not None)
            board.write(f"reduced/{rank}", asdict(result))
            hung = result.hung
        ok = self._hear(board, "verdict")
        board.write(f"left/{rank}", True)
        return Outcome(bool(ok), hung)

    def _report(self, board: Board, folder: SharedFolder, clock: Callable[[], float]) -> None:
        """Examine this rank and leave the report; a fault of our own is reported too, or all would wait for it."""
        rank = self.place.rank
        tell = sign_of_life(board, rank)

        def alive() -> None:
            self._expect_progress()
            tell()

        alive()
        try:
            report = examine_rank(self.request, self.place, alive, folder, clock)
        except (CutOffError, dist.DistError):
            raise
        except Exception as error:
            traceback.print_exc()
            report = RankReport(self.place.node, [f"rank {rank}: the check itself failed: {first_line(error)}"])
        board.write(f"report/{rank}", report_as_json(report))
        self.limit.disarm()

    def _hear(self, board: Board, name: str) -> Any:
        """Return a note of rank 0's; ends this process when rank 0 gives no sign of life."""
        try:
            return wait_for_rank_0(board, name, self._expect_rank_0)
        finally:
            self.limit.disarm()

    def _clock_offset(self, board: Board) -> float:
        self._expect_rank_0()
        try:
            return clocks.clock_offset(lambda: float(board.read(CLOCK)))
        finally:
            self._expect_progress()

    def _expect_rank_0(self) -> None:
        self.limit.arm(self.timeout, f"no sign of life from rank 0 ({self.place.address}) for {self.timeout:g} s")

    def _expect_progress(self) -> None:
        """Allow this rank `timeout` seconds until its next sign of life: its clock goes on when its work hangs."""
        self.limit.arm(self.timeout, f"no progress for {self.timeout:g} s: a disk, a driver or a library hangs there")

    def _folder(self, board: Board) -> SharedFolder:
        def ask() -> Any:
            note = self._hear(board, "token")
            self._expect_progress()
            return note

        config = self.request.config
        return SharedFolder(
            config.training.output_dir if config is not None else "",
            self.place.rank,
            tell=lambda note: board.write("token", note),
            ask=ask,
        )

    def _judged(self, board: Board) -> tuple[list[NodeVerdict], list[int]]:
        """Wait for the reports of all ranks and judge them."""
        answers, missing = collect(board, "report", range(self.place.world_size), self.timeout)
        reports: dict[int, RankReport] = {rank: report_from_json(answer) for rank, answer in answers.items()}
        expected = expected_nodes(os.environ, self.place.world_size)

        notes = {rank: board.read(f"node/{rank}") for rank in range(self.place.world_size)}
        arrivals = {rank: Arrival(**note) for rank, note in notes.items() if note is not None}

        def node_of_missing(rank: int) -> str:
            if rank in arrivals:
                return arrivals[rank].node
            return expected[rank] if expected else "unknown node"

        nodes = nodes_of(reports, missing, node_of_missing, self.timeout)
        judge(nodes, reports[0].needs, self.demands)
        misplaced = problems_of_arrivals(arrivals, self.place.world_size)
        for node in nodes:
            node.problems[:0] = misplaced.get(node.name, [])
        return nodes, missing

    def _all_reduce(self, board: Board, stop: Callable[[], bool]) -> AllReduce:
        rank, store = self.place.rank, second_connection(self.place, board, self.timeout)

        def on_stage(stage: str) -> None:
            board.write(f"stage/{rank}", STAGES.index(stage))

        self.limit.arm(self.timeout + GRACE_SECONDS, f"the all-reduce did not end within {self.timeout:g} s")
        result = all_reduce_within(
            self.timeout, lambda: all_reduce(self.place, self.demands.device, store, self.timeout, on_stage), stop
        )
        self.limit.disarm()
        return result

    def _any_error(self, board: Board) -> bool:
        answers = (board.read(f"reduced/{rank}") for rank in range(self.place.world_size))
        return any(answer is not None and answer["error"] is not None for answer in answers)

    def _note_all_reduce(self, board: Board, nodes: list[NodeVerdict], end: float) -> list[int]:
        """Put what every rank saw of the all-reduce down to the nodes; return the ranks that do not answer any more.

        `end` is when its time is up, by the monotonic clock.
        """
        patience = max(GRACE_SECONDS, end - time.monotonic())
        if self._any_error(board):
            board.write("stop", True)  # who still waits for a rank that failed would pass for dead
            patience = OTHER_ERRORS_SECONDS
        answers, silent = collect(board, "reduced", range(self.place.world_size), patience)
        results = {rank: AllReduce(**answer) for rank, answer in answers.items()}
        stages = {rank: int(board.read(f"stage/{rank}") or 0) for rank in range(self.place.world_size)}
        note_all_reduce(nodes, results, stages, self.timeout)
        return silent

    def _announce(self, board: Board, nodes: list[NodeVerdict], absent: list[int], hung: bool) -> Outcome:
        """Print the lines and the verdict, tell it to all ranks and wait until they heard it."""
        for line in node_lines(nodes):
            print(line)
        ok = not failed(nodes)
        print(verdict_line(nodes, self.place.world_size, time.monotonic() - self.started), flush=True)
        board.write("verdict", ok)
        others = [rank for rank in range(1, self.place.world_size) if rank not in absent]
        collect(board, "left", others, FAREWELL_SECONDS)
        return Outcome(ok, hung)
