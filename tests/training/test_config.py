"""Bad configurations end with one message that names the flag and exit status 2, before anything is written."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from megatron_agent.errors import UserError
from megatron_agent.training.config import parse_config, world_size_from_environment

SOURCES = ["--data.agent", "[{name: a, prefix: p}]", "--data.eta", "1"]
MODEL = ["--model.config", "llama-2-7b"]


def test_defaults_are_the_papers() -> None:
    config = parse_config([*MODEL, *SOURCES])
    training, optimizer = config.training, config.optimizer
    assert (training.train_iters, training.global_batch_size, config.data.seq_length) == (2000, 64, 4096)
    assert (training.hidden_dropout, training.attention_dropout) == (0.05, 0.0)
    assert (optimizer.lr, optimizer.lr_warmup_fraction, optimizer.lr_decay_fraction) == (5e-5, 0.02, 0.9)
    assert (optimizer.adam_beta1, optimizer.adam_beta2, optimizer.adam_eps) == (0.9, 0.95, 1e-8)
    assert (optimizer.weight_decay, optimizer.clip_grad) == (0.1, 1.0)


def test_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    values = {
        "model": {"config": "llama-2-7b"},
        "data": {"agent": [{"name": "a", "prefix": "p"}], "eta": 1.0},
        "optimizer": {"lr": 0.5, "clip_grad": 2.0},
    }
    file.write_text(yaml.safe_dump(values))
    config = parse_config(["--config", str(file), "--optimizer.lr", "1e-5"])
    assert (config.optimizer.lr, config.optimizer.clip_grad) == (1e-5, 2.0)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([*SOURCES], "--model.checkpoint"),
        ([*SOURCES, *MODEL, "--model.checkpoint", "x"], "--model.config"),
        (
            [*MODEL, *SOURCES, "--training.train_iters", "0"],
            "--training.train_iters must be at least 1 and finite, got 0",
        ),
        ([*MODEL, *SOURCES, "--training.train_iters", "many"], "training.train_iters"),
        ([*MODEL, *SOURCES, "--training.hidden_dropout", "1.5"], "--training.hidden_dropout must lie in [0, 1)"),
        ([*MODEL, *SOURCES, "--training.precision", "fp8"], "training.precision"),
        ([*MODEL, *SOURCES, "--optimizer.lr", ".nan"], "--optimizer.lr must be at least 0"),
        ([*MODEL, *SOURCES, "--optimizer.adam_beta1", "1"], "--optimizer.adam_beta1 must lie in [0, 1)"),
        ([*MODEL, *SOURCES, "--training.seed", "-1"], "--training.seed"),
        ([*MODEL, *SOURCES, "--training.output_dir", __file__], "--training.output_dir must be a folder"),
        ([*MODEL, *SOURCES, "--optimizer.lr_warmup_fraction", "0.95"], "--optimizer.lr_decay_fraction"),
        ([*MODEL, *SOURCES, "--data.eta", "1.5"], "data.eta"),
        ([*MODEL, "--data.eta", "0.2"], "data.agent"),
        ([*MODEL, *SOURCES, "--checkpoint.save_interval", "-1"], "--checkpoint.save_interval"),
        ([*MODEL, *SOURCES, "--lora.r", "-1"], "--lora.r must be at least 0"),
        ([*MODEL, *SOURCES, "--lora.target_modules", "[q_proj]"], "--lora.target_modules must name one or more of"),
        (["--model.config", "llama-2-7b", *SOURCES, "--lora.r", "8"], "needs --model.checkpoint"),
        (["--config", "no/such.yaml"], "no/such.yaml"),
    ],
)
def test_bad_values_name_the_flag(arguments: list[str], named: str) -> None:
    with pytest.raises(UserError) as error:
        parse_config(arguments)
    assert named in str(error.value)


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("training: {train_itres: 3}\n")
    with pytest.raises(UserError, match="train_itres"):
        parse_config(["--config", str(file)])


def test_rows_must_divide() -> None:
    config = parse_config([*MODEL, *SOURCES, "--training.global_batch_size", "64", "--training.micro_batch_size", "3"])
    with pytest.raises(UserError, match=r"--training.micro_batch_size \(3\)"):
        config.num_microbatches(data_parallel_size=2)
    config.training.micro_batch_size = 2
    assert config.num_microbatches(data_parallel_size=4) == 8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--parallel.tensor_model_parallel_size", "4"], "tensor_model_parallel_size=4 does not divide"),
        (["--parallel.pipeline_model_parallel_size", "3"], "pipeline_model_parallel_size=3 does not divide"),
        (["--parallel.tensor_model_parallel_size", "2"], "world size 1"),
        (["--parallel.sequence_parallel", "true"], "sequence_parallel"),
        (["--training.micro_batch_size", "3"], "--training.micro_batch_size"),
        (["--model.checkpoint", "no/such/folder"], "no/such/folder"),
        (["--data.agent", "[{name: agent, prefix: no/such/prefix}]"], "no/such/prefix"),
        (["--data.seq_length", "32"], "data.seq_length"),
    ],
)
def test_the_command_refuses_before_any_work(
    overrides: list[str], message: str, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    """The real command: status 2, one error line on stderr, no traceback, no output folder."""
    command = [sys.executable, "-m", "megatron_agent.train", "--config", str(write_config()), *overrides]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_tasks_of_srun_without_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would be a world of its own, writing into one folder."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "16")
    with pytest.raises(UserError, match="srun started 16 tasks without WORLD_SIZE"):
        world_size_from_environment()
    monkeypatch.setenv("WORLD_SIZE", "16")
    assert world_size_from_environment() == 16
