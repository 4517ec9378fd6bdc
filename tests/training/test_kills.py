"""Fifty kills at random moments, checkpoint writing included: always resumable, never a wrong step."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.training.conftest import TinyInputs, read_metrics, write_tiny_config
from tests.training.launching import LaunchedRun, Launcher, compared

# A save every other step, and dropout and evaluation on: a resume must repeat them too.
TRAINING = {"train_iters": 12, "hidden_dropout": 0.1, "global_batch_size": 2, "eval_interval": 4}
SECONDS_FOR_PEERS = 2.0  # ranks whose peer was killed end by themselves, or are ended as srun --kill-on-bad-exit does


def wait_for_save(run: LaunchedRun, root: Path, skip: int) -> None:
    """Wait until a save has begun after `skip` others of this run, or the run has ended."""
    for _ in range(skip + 1):
        while any(root.glob(".iter*.tmp")) and not run.ended(0.002):
            pass
        while not any(root.glob(".iter*.tmp")) and not run.ended(0.002):
            pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "ranks", "parallel", "async_save"),
    [
        (19, 1, {}, True),
        (15, 1, {}, False),
        (8, 2, {}, True),
        (8, 2, {"tensor_model_parallel_size": 2}, True),
    ],
    ids=["one_rank_async", "one_rank_sync", "DP2_async", "TP2_async"],
)
def test_fifty_kills(
    kills: int,
    ranks: int,
    parallel: dict,
    async_save: bool,
    launcher: Launcher,
    tiny_inputs: TinyInputs,
    tmp_path: Path,
) -> None:
    seed = random.randrange(2**32)
    generator = random.Random(seed)
    sections = {
        "parallel": parallel,
        "training": TRAINING,
        "checkpoint": {"save_interval": 2, "async_save": async_save, "keep_last": 1, "keep_best": 1},
        "data": {"cache_dir": str(tmp_path / "cache")},
    }
    log = tmp_path / "log.txt"
    started = time.monotonic()
    statuses, output = launcher.run(
        write_tiny_config(tiny_inputs, tmp_path, "undisturbed", **sections), log, ranks=ranks
    )
    duration = time.monotonic() - started
    assert statuses == [0] * ranks, output
    expected = compared(read_metrics(tmp_path / "undisturbed"))
    expected_validation = read_metrics(tmp_path / "undisturbed", "validation.jsonl")
    killed = attempt = interrupted = 0
    while killed < kills:
        attempt += 1
        folder = tmp_path / f"run{attempt}"
        config = write_tiny_config(tiny_inputs, tmp_path, folder.name, **sections)
        while True:  # until a run comes through
            log.unlink()
            run = launcher.start(config, log, ranks=ranks)
            delay = generator.uniform(0, duration)
            if generator.random() < 0.4:  # anywhere is mostly the start; these hit a save
                skip = generator.randrange(4)
                wait_for_save(run, folder / "checkpoints", skip)
                delay = generator.uniform(0, 0.15)
            if killed < kills and not run.ended(delay):
                run.signal(generator.randrange(ranks), signal.SIGKILL)
                killed += 1
                interrupted += any((folder / "checkpoints").glob(".iter*"))
                if not run.ended(SECONDS_FOR_PEERS):
                    for rank in range(ranks):
                        run.signal(rank, signal.SIGKILL)
                run.wait()
                continue
            statuses = run.wait()
            about = f"seed {seed}, run {attempt}, {killed} kills\n{run.output()}"
            assert statuses == [0] * ranks, about
            break
        assert compared(read_metrics(folder)) == expected, about
        assert read_metrics(folder, "validation.jsonl") == expected_validation, about
        assert sorted(path.name for path in (folder / "checkpoints").glob(".iter*")) == [], about
    print(f"{killed} kills in {attempt} runs of {duration:.1f} s, {interrupted} left an unfinished save behind")
