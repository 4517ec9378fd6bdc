"""Start training runs fast, as srun would: a process that has imported everything forks the ranks of each run.

    python -m tests.training.launcher      reads a line of JSON for each run, writes two

in    {"ranks": N, "command": MODULE, "arguments": [...], "log": FILE, "prepare": "MODULE:FUNCTION" or "", "port": N}
out   {"pids": [...]}                  the ranks have started
      {"statuses": [...]}              all have ended; a negative status is the signal that ended one

`FUNCTION(rank)` runs in each rank before the `main` of the command. Port 0 means any free one. Nothing here has made a
thread or a process group before a fork.
"""

import importlib
import json
import os
import socket
import sys
import warnings
from typing import Any


def import_everything() -> None:
    warnings.simplefilter("ignore")
    import torch.utils.tensorboard  # noqa: F401

    import megatron_agent.training.loop  # noqa: F401


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_rank(rank: int, request: dict[str, Any], port: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(request["ranks"]), LOCAL_RANK=str(rank))
        if request["ranks"] > 1:
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        command = importlib.import_module(request["command"])
        from megatron_agent.errors import run_command

        if request["prepare"]:
            module, function = request["prepare"].split(":")
            getattr(importlib.import_module(module), function)(rank)
        try:
            run_command(lambda: command.main(request["arguments"]))
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def main() -> None:
    import_everything()
    for line in sys.stdin:
        request = json.loads(line)
        port = request["port"] or free_port()
        pids = [start_rank(rank, request, port) for rank in range(request["ranks"])]
        print(json.dumps({"pids": pids}), flush=True)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps({"statuses": statuses}), flush=True)


if __name__ == "__main__":
    main()
