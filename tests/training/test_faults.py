"""What a run does about bad numbers, full disks, hanging ranks and drifting weights."""

import json
import math
import os
import re
import shutil
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_agent.errors import UserError
from megatron_agent.model.checkpoint_folder import complete_checkpoints, verify_checkpoint
from megatron_agent.training.background import BackgroundCall, BackgroundCallError
from megatron_agent.training.bad_steps import SpikeDetector
from megatron_agent.training.saves import check_room, ensure_optimizer_state, prune_checkpoints
from megatron_agent.training.watchdog import EXIT_HANG
from megatron_agent.training.weight_check import bit_sum, differences
from tests.training.conftest import read_metrics
from tests.training.launching import Launcher

TP2 = {"tensor_model_parallel_size": 2}
OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True}


def faulty(name: str) -> str:
    return f"tests.training.faulty:{name}"


def saved_state(folder: Path) -> tuple[dict[str, Any], int]:
    """Hashes of the tensor files of a checkpoint, and Adam's step count in it."""
    files = json.loads((folder / "manifest.json").read_text())["files"]
    common = torch.load(folder / "common.pt", weights_only=True)
    step = common["optimizer"]["optimizer"]["param_groups"][0]["step"]
    return {name: entry for name, entry in files.items() if name.endswith(".distcp")}, int(step)


def test_a_step_with_nan_loss_is_skipped_everywhere(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    """Under PP2 only the last stage sees the loss; all skip, and the row at fault is named."""
    config = write_config(
        parallel={"pipeline_model_parallel_size": 2},
        training={"train_iters": 3, "eval_interval": 0},
        checkpoint={"save_interval": 1, "keep_last": 0},
    )
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2, prepare=faulty("nan_loss_in_step_2"))
    assert statuses == [0, 0], output
    metrics = read_metrics(tmp_path / "run")
    assert [record.get("skipped", False) for record in metrics] == [False, True, False]
    skipped = metrics[1]
    assert skipped["loss"] is None
    assert (skipped["rows"], skipped["rows_not_finite"]) == ([4, 7], [6])  # global batch 4, micro-batch 1
    assert read_metrics(tmp_path / "run", "skipped_steps.jsonl") == [skipped]
    assert "step 2 skipped on all ranks: its loss is not finite" in output
    assert all(math.isfinite(metrics[step]["loss"]) for step in (0, 2))
    # Weights and moments of step 1 are those of step 2, and Adam has counted one step.
    states = [saved_state(tmp_path / "run" / "checkpoints" / f"iter_000000{step}") for step in (1, 2, 3)]
    assert states[0] == states[1]
    assert states[1] != states[2]
    assert [adam_steps for _, adam_steps in states] == [1, 1, 2]


def test_an_infinite_gradient_on_one_rank_is_skipped_on_both(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = write_config(training={"train_iters": 3, "eval_interval": 0})
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2, prepare=faulty("infinite_gradient_in_step_2"))
    assert statuses == [0, 0], output
    skipped = read_metrics(tmp_path / "run")[1]
    assert (skipped["skipped"], skipped["grad_norm"], skipped["rows_not_finite"]) == (True, None, [])
    assert math.isfinite(skipped["loss"])


def test_too_many_skipped_steps_stop_the_run(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = write_config(
        training={"eval_interval": 0}, reliability={"max_skipped_steps": 2}, checkpoint={"save_interval": 1}
    )
    statuses, output = launcher.run(config, tmp_path / "log", prepare=faulty("nan_loss_from_step_2_on"))
    assert statuses == [2], output
    assert "2 steps in a row" in output
    assert [record["step"] for record in read_metrics(tmp_path / "run")] == [1, 2, 3]
    for folder in complete_checkpoints(tmp_path / "run" / "checkpoints"):
        verify_checkpoint(folder)


@pytest.mark.parametrize("async_save", [True, False])
def test_a_full_disk_is_an_error_on_all_ranks(
    async_save: bool, launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = write_config(
        training={"train_iters": 50, "eval_interval": 0}, checkpoint={"save_interval": 2, "async_save": async_save}
    )
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2, prepare=faulty("disk_full_at_second_save"))
    assert statuses == [2, 2], output
    root = tmp_path / "run" / "checkpoints"
    assert f"error: {root / 'iter_0000004'} could not be written (rank 0: " in output
    assert f"the run goes on from {root / 'iter_0000002'}, which is intact" in output
    assert [path.name for path in sorted(root.glob("*iter_*"))] == ["iter_0000002"]
    verify_checkpoint(root / "iter_0000002")


def test_a_killed_writer_is_an_error_on_all_ranks(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = write_config(training={"train_iters": 50, "eval_interval": 0}, checkpoint={"save_interval": 2})
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2, prepare=faulty("killed_writer"))
    assert statuses == [2, 2], output
    assert output.count("(rank 1: its process was killed by SIGKILL)") == 2
    assert "no checkpoint is complete yet" in output


def test_drifted_weights_are_named(launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path) -> None:
    reliability = {"check_weight_hash_across_dp_replicas_interval": 1}
    config = write_config(parallel=TP2, training={"eval_interval": 0}, reliability=reliability)
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2, prepare=faulty("drifted_norm"))
    assert statuses == [2, 2], output
    assert "ranks hold different weights before the update of step 3: 1 tensors differ" in output
    assert "pipeline stage 0, decoder.final_layernorm.weight: ranks [0] and ranks [1] differ" in output


@pytest.mark.parametrize(
    ("prepare", "kernels", "step"), [("flipped_after_update", {}, 3), ("flipped_after_backward", OVERLAP, 2)]
)
def test_replicas_that_differ_are_named_before_the_update_hides_it(
    prepare: str,
    kernels: dict[str, bool],
    step: int,
    launcher: Launcher,
    write_config: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """The gathering of updated weights would spread one rank's copy to the other."""
    reliability = {"check_weight_hash_across_dp_replicas_interval": 1}
    config = write_config(kernels=kernels, training={"eval_interval": 0}, reliability=reliability)
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2, prepare=faulty(prepare))
    assert statuses == [2, 2], output
    assert f"ranks hold different weights before the update of step {step}: 1 tensors differ" in output
    assert "ranks [0] and ranks [1] differ" in output


@pytest.mark.parametrize("kernels", [{}, OVERLAP])
def test_equal_replicas_pass_the_check(
    kernels: dict[str, bool], launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    reliability = {"check_weight_hash_across_dp_replicas_interval": 1}
    config = write_config(kernels=kernels, training={"eval_interval": 2}, reliability=reliability)
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2)
    assert statuses == [0, 0], output


def test_a_hang_leaves_the_stacks_of_all_ranks(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = write_config(training={"eval_interval": 0}, reliability={"hang_timeout_in_mins": 0.1})
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2, prepare=faulty("hang_in_step_3"))
    assert statuses == [EXIT_HANG, EXIT_HANG], output
    assert "rank 1 hangs: step 3, data" in output
    assert "rank 0 hangs: step 3, forward and backward" in output
    assert "in sleeping" in (tmp_path / "run" / "stacks" / "rank_1.txt").read_text()
    assert "in forward_backward" in (tmp_path / "run" / "stacks" / "rank_0.txt").read_text()


def test_a_long_write_that_makes_progress_is_no_hang(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    """The first save is waited for in the background, by the second; the last one is written in front."""
    config = write_config(
        training={"train_iters": 2, "eval_interval": 0},
        checkpoint={"save_interval": 1, "keep_last": 0},
        reliability={"hang_timeout_in_mins": 0.07},
    )
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2, prepare=faulty("growing_writes"))
    assert statuses == [0, 0], output
    for folder in complete_checkpoints(tmp_path / "run" / "checkpoints"):
        verify_checkpoint(folder)


def test_a_write_that_stands_still_is_a_hang(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = write_config(training={"train_iters": 1, "eval_interval": 0}, reliability={"hang_timeout_in_mins": 0.07})
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2, prepare=faulty("stalled_write"))
    assert statuses == [EXIT_HANG, EXIT_HANG], output
    for rank in (0, 1):
        assert f"rank {rank} hangs: step 1, checkpoint: waiting for the write" in output


def test_a_run_whose_first_steps_are_all_skipped_can_be_saved(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    """The optimizer has no state before the first step it applies."""
    config = write_config(
        training={"train_iters": 3, "eval_interval": 0},
        reliability={"max_skipped_steps": 10},
        checkpoint={"save_interval": 1, "keep_last": 0},
    )
    statuses, output = launcher.run(config, tmp_path / "log", prepare=faulty("nan_loss_from_step_1_on"))
    assert statuses == [0], output
    folders = complete_checkpoints(tmp_path / "run" / "checkpoints")
    states = [saved_state(folder) for folder in folders]
    assert [adam_steps for _, adam_steps in states] == [0, 0, 0]
    assert states[0] == states[1] == states[2]

    for folder in folders[1:]:
        shutil.rmtree(folder)
    (tmp_path / "log").unlink()
    statuses, output = launcher.run(config, tmp_path / "log")
    assert statuses == [0], output
    assert "after step 1" in output
    assert [record.get("skipped", False) for record in read_metrics(tmp_path / "run")] == [True, False, False]
    last = complete_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert saved_state(last)[1] == 2


def test_a_fused_optimizer_gets_its_state_without_a_change_of_weights() -> None:
    """With torch's Adam in its place: it too has no state before its first step, and would apply weight decay."""
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    weight = torch.nn.Parameter(torch.randn(5))
    before = weight.detach().clone()
    inner = torch.optim.Adam([weight], lr=0.1, weight_decay=0.5)
    distributed = types.SimpleNamespace(optimizer=inner)
    distributed._init_optimizer_states_with_dummy_values = partial(
        DistributedOptimizer._init_optimizer_states_with_dummy_values, distributed
    )
    ensure_optimizer_state(types.SimpleNamespace(chained_optimizers=[distributed]))
    assert torch.equal(weight.detach(), before)
    assert not inner.state[weight]["exp_avg"].any()
    (group,) = inner.param_groups
    assert (group["lr"], group["weight_decay"], group["step"]) == (0.1, 0.5, 0)


def test_the_gathered_state_is_freed_before_the_write_begins(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    """The plan has its own copy; a second one would be kept by the fork."""
    config = write_config(training={"train_iters": 3, "eval_interval": 0}, checkpoint={"save_interval": 2})
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2, prepare=faulty("gathered_state"))
    assert statuses == [0, 0], output
    assert re.search(r"rank 0: 0 of [1-9][0-9]* gathered tensors alive", output), output
    assert "common state dict differs" not in output


def test_damaged_data_is_refused_by_all_ranks(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path, tiny_inputs: object
) -> None:
    """Only the first rank of a node hashes."""
    for source in tiny_inputs.data.glob("*.*"):  # type: ignore[attr-defined]
        shutil.copy(source, tmp_path)
    content = bytearray((tmp_path / "agent.bin").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "agent.bin").write_bytes(content)
    config = write_config(data={"agent": [{"name": "agent", "prefix": str(tmp_path / "agent")}]})
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2)
    assert statuses == [2, 2], output
    assert output.count("agent.bin: expected sha256") == 2


def test_checkpoints_that_cannot_be_written_are_refused_at_the_start(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = write_config()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("a file")
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2)
    assert statuses == [2, 2], output
    assert "a file is where a folder is needed" in output


def test_the_best_and_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    losses = {10: 2.0, 20: 1.5, 30: None, 40: 1.7, 50: 3.0, 60: 2.5}
    for step, loss in losses.items():
        folder = tmp_path / f"iter_{step:07d}"
        folder.mkdir()
        (folder / "manifest.json").write_text("{}")
        (folder / "run.json").write_text(json.dumps({"validation_loss": loss}))
    prune_checkpoints(tmp_path, 0, 1)
    assert len(complete_checkpoints(tmp_path)) == 6
    prune_checkpoints(tmp_path, 1, 2)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["iter_0000020", "iter_0000040", "iter_0000060"]
    prune_checkpoints(tmp_path, 1, 0)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["iter_0000060"]


def test_a_disk_without_room_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no room for .*iter_0000005: it needs 1,000,000,000,000,000,000 bytes"):
        check_room(tmp_path / "checkpoints", 5, 10**18)


def test_a_background_call_sees_the_memory_of_its_start() -> None:
    tensor = torch.zeros(1_000_000)
    call = BackgroundCall(lambda: float(tensor.sum()))
    tensor.fill_(1)
    assert call.result() == 0.0
    assert not call.running()
    assert not call.failed()


def test_errors_of_a_background_call_come_back() -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device", "file.distcp")

    call = BackgroundCall(fail)
    with pytest.raises(BackgroundCallError, match=r"No space left on device: 'file.distcp'"):
        call.result()
    assert call.failed()


def test_a_background_call_that_leaves_no_result_is_an_error() -> None:
    call = BackgroundCall(lambda: os._exit(0))
    with pytest.raises(BackgroundCallError, match=r"could not be read \(EOFError: "):
        call.result()
    call = BackgroundCall(lambda: lambda: None)  # cannot be pickled
    with pytest.raises(BackgroundCallError, match="could not be read"):
        call.result()
    assert call.failed()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ("missing_file_on_rank_1", "__0_0.distcp: missing"),
        ("unreadable_file_on_rank_1", "Input/output error"),
        ("unreadable_manifest_on_rank_0", "Input/output error"),
    ],
)
def test_a_checkpoint_that_one_rank_cannot_read_is_refused_by_all(
    prepare: str, message: str, launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    statuses, output = launcher.run(write_config(), tmp_path / "log", ranks=2, prepare=faulty(prepare))
    assert 0 not in statuses, output
    assert output.count(message) >= 2, output  # on both


def test_a_spike_is_told_and_then_belongs_to_the_mean() -> None:
    detector = SpikeDetector(2.0, [1.0] * 9)
    assert detector.warning(10, 5.0, 0, 4) is None  # too few steps to tell
    detector = SpikeDetector(2.0, [1.0] * 50)
    assert detector.warning(51, 1.9, 200, 4) is None
    warning = detector.warning(52, 2.5, 204, 4)
    assert warning is not None
    assert "loss 2.5000 of step 52 is more than 2 times the mean 1.0180" in warning
    assert "rows 204 to 207" in warning
    assert SpikeDetector(0.0, [1.0] * 50).warning(51, 100.0, 0, 4) is None


def test_every_bit_counts_in_the_weight_check() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        weight = torch.randn(257, 3).to(dtype)
        other = weight.clone()
        integers = other.view(torch.int16 if dtype == torch.bfloat16 else torch.int32)
        for bit in (0, 7, 8 * weight.element_size() - 1):
            integers[200, 1] ^= -(1 << bit) if bit == 8 * weight.element_size() - 1 else 1 << bit
            assert bit_sum(weight) != bit_sum(other)
            other.copy_(weight)
        assert bit_sum(weight) == bit_sum(other)


def test_differences_name_the_smaller_group_first() -> None:
    norm, tied = (0, 0, "norm", None), ("tied embedding", 0)
    gathered = [[(norm, "norm", 5), (tied, "tied", 1)], [(norm, "norm", 6)], [(norm, "norm", 5), (tied, "tied", 1)]]
    assert differences(gathered) == ["norm: ranks [1] and ranks [0, 2] differ"]
