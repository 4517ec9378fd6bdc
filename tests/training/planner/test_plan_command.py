"""`python -m megatron_agent.plan`: what it prints, writes and refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_agent.errors import UserError
from megatron_agent.model.checkpoint_folder import write_json
from megatron_agent.model.config import PRESETS
from megatron_agent.plan import main
from megatron_agent.training.planner.plan import GIB
from tests.distributed import REPOSITORY


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A run of the paper's size whose checkpoint and data are not on this machine."""
    path = tmp_path / "run.yaml"
    data = {"agent": [{"prefix": "data/agent"}], "general": [{"prefix": "data/general"}]}
    path.write_text(yaml.safe_dump({"model": {"checkpoint": str(tmp_path / "absent")}, "data": data}))
    return path


def plan(config_file: Path, tmp_path: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    """Run the command and return its JSON."""
    output = tmp_path / "plan.json"
    command = ["--config", str(config_file), "--json", str(output), *arguments]
    if status:
        with pytest.raises(SystemExit) as exit_info:
            main(command)
        assert exit_info.value.code == status
    else:
        main(command)
    result: dict[str, Any] = json.loads(output.read_text())
    return result


SEVENTY = ("--model.config", "llama-2-70b", "--parallel.tensor_model_parallel_size", "8")
SEVENTY += ("--parallel.pipeline_model_parallel_size", "4", "--parallel.sequence_parallel", "true")


def test_seventy_billion(config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "plan.png"
    result = plan(config_file, tmp_path, *SEVENTY, "--world-size", "64", "--plot", str(picture))
    assert result["model"]["parameters"] == 68_976_648_192
    assert result["model"]["padding_parameters"] == 0
    assert (result["layout"]["data_parallel_size"], result["layout"]["num_microbatches"]) == (2, 32)
    ranks = result["memory"]["ranks"]
    assert [rank["microbatches_in_flight_per_chunk"] for rank in ranks] == [[4], [3], [2], [1]]
    for rank in ranks:
        held = rank["parameters"]
        assert rank["weights_bytes"] == 2 * held
        assert rank["gradients_bytes"] == 4 * held
        assert rank["optimizer_state_bytes"] == 12 * held // 2
        assert rank["peak_bytes"] == sum(rank["terms_bytes"].values())
        parts = ("weights", "gradients", "optimizer_state", "activations", "temporaries")
        assert rank["peak_bytes"] == sum(rank[f"{part}_bytes"] for part in parts)
        assert rank["fits"] == (rank["peak_bytes"] <= 74 * GIB)
    assert result["time"]["pipeline_bubble_fraction"] == pytest.approx(3 / 32)
    assert result["time"]["tokens_per_step"] == 64 * 4096
    seconds = result["time"]["model_flops_per_step"] / (64 * 989e12 * 0.4)
    assert result["time"]["gpu_hours"] == pytest.approx(64 * 2000 * seconds / 3600)
    assert result["checkpoint"]["weights_bytes"] == 2 * 68_976_648_192
    assert result["suggestion"] is None
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "68,976,648,192" in printed
    assert "upper bound" in printed


def test_activations_of_transformer_engine_are_those_of_the_literature(config_file: Path, tmp_path: Path) -> None:
    """Korthikanti et al., arXiv:2205.05198, equation 4: with tensor and sequence parallelism and flash attention a
    layer keeps 34 s b h / t bytes. SwiGLU with 3 f = 8 h and grouped queries move it little for 7B (f = 2.69 h):
    norms 8, attention 10 (q, k, v, output, log-sum-exp aside), MLP 6 f / h, dropout 2."""
    layout = ("--parallel.tensor_model_parallel_size", "2", "--parallel.sequence_parallel", "true")
    result = plan(config_file, tmp_path, "--model.config", "llama-2-7b", *layout, "--world-size", "8")
    terms = result["memory"]["ranks"][0]["terms_bytes"]
    layers = sum(terms[name] for name in ("norms", "attention", "MLP", "dropout")) / 32
    hidden = 4096 * 4096 / 2  # s b h / t
    assert layers / hidden == pytest.approx(8 + 8 + 6 * 11008 / 4096 + 2, rel=0.02)


def test_does_not_fit_names_terms_and_a_layout(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = plan(config_file, tmp_path, "--model.config", "llama-2-13b", "--world-size", "8", status=1)
    assert not result["memory"]["fits"]
    printed = capsys.readouterr().out
    assert "largest terms" in printed
    assert "does not fit" in printed
    suggestion = result["suggestion"]
    assert suggestion["world_size"] == 8
    flags = [text for flag, value in suggestion["flags"].items() for text in (flag, str(value).lower())]
    again = plan(config_file, tmp_path, "--model.config", "llama-2-13b", "--world-size", "8", *flags)
    assert again["memory"]["fits"]
    assert max(rank["peak_bytes"] for rank in again["memory"]["ranks"]) == suggestion["peak_bytes"]


def test_more_gpus_where_no_layout_fits(config_file: Path, tmp_path: Path) -> None:
    result = plan(config_file, tmp_path, "--model.config", "llama-2-70b", "--world-size", "8", status=1)
    assert result["suggestion"]["world_size"] > 8


def test_a_layout_that_does_not_divide_comes_with_one_that_does(config_file: Path) -> None:
    layout = ["--parallel.tensor_model_parallel_size", "3", "--model.config", "llama-2-7b", "--world-size", "8"]
    with pytest.raises(UserError, match="tensor_model_parallel_size=3 does not divide") as refused:
        main(["--config", str(config_file), *layout])
    assert "Nearest layout that fits: --world-size 8 --parallel.tensor_model_parallel_size" in str(refused.value)


def test_recompute_groups_must_divide_the_layers(config_file: Path) -> None:
    recompute = ["--training.recompute_granularity", "full", "--training.recompute_num_layers", "5"]
    with pytest.raises(UserError, match="recompute_num_layers"):
        main(["--config", str(config_file), "--model.config", "llama-2-7b", "--world-size", "8", *recompute])


def test_lora_has_gradients_of_adapters_only(config_file: Path, tmp_path: Path) -> None:
    result = plan(config_file, tmp_path, "--model.config", "llama-2-7b", "--world-size", "1", "--lora.r", "16")
    # The library PEFT on q, k, v, o, gate, up and down has more: there gate, up and q, k, v have an A of their own.
    a_and_b = 16 * ((4096 + 3 * 4096) + (4096 + 4096) + (4096 + 2 * 11008) + (11008 + 4096))
    assert result["model"]["adapter_parameters"] == 32 * a_and_b
    (rank,) = result["memory"]["ranks"]
    assert rank["gradients_bytes"] == 4 * 32 * a_and_b
    assert rank["optimizer_state_bytes"] == 12 * 32 * a_and_b
    assert rank["weights_bytes"] == 2 * (6_738_415_616 + 32 * a_and_b)
    full = plan(config_file, tmp_path, "--model.config", "llama-2-7b", "--world-size", "1", status=1)
    assert result["time"]["model_flops_per_step"] < full["time"]["model_flops_per_step"]


def test_conversation_length_lowers_the_flops(config_file: Path, tmp_path: Path) -> None:
    command = ("--model.config", "llama-2-7b", "--world-size", "8", "--parallel.tensor_model_parallel_size", "2")
    whole = plan(config_file, tmp_path, *command)["time"]
    short = plan(config_file, tmp_path, *command, "--conversation-tokens", "1024")["time"]
    # Attention is proportional to tokens x length: a quarter of the length, a quarter of its FLOPs.
    saved = whole["model_flops_per_step"] - short["model_flops_per_step"]
    assert saved == pytest.approx(0.75 * whole["attention_share"] * whole["model_flops_per_step"])


def test_sizes_are_read_beside_weights_that_are_not_there(config_file: Path, tmp_path: Path) -> None:
    write_json_folder = tmp_path / "absent" / "hf"
    write_json_folder.mkdir(parents=True)
    write_json(write_json_folder / "config.json", PRESETS["llama-2-7b"].to_hf())
    result = plan(config_file, tmp_path, "--world-size", "8", "--parallel.tensor_model_parallel_size", "2")
    assert result["model"]["parameters"] == 6_738_415_616


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--world-size", "8"], "--model.config llama-2-7b"),
        (["--model.config", "llama-2-7b"], "--world-size is needed"),
        (["--model.config", "llama-2-7b", "--world-size", "0"], "--world-size must be at least 1"),
        (["--model.config", "llama-2-7b", "--world-size", "8", "--mfu", "40"], "--mfu must lie in"),
        (["--model.config", "llama-2-7b", "--world-size", "8", "--reserve-gb", "80"], "--reserve-gb"),
        (["--model.config", "gpt-5", "--world-size", "8"], "expected a preset"),
        (["--model.config", "llama-2-7b", "--world-size", "8", "--trainng.seed", "1"], "trainng"),
    ],
)
def test_refusals_name_the_flag(config_file: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(["--config", str(config_file), *arguments])


def test_json_on_standard_output_is_all_there_is(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--config", str(config_file), *SEVENTY, "--world-size", "32", "--json", "-"])
    assert json.loads(capsys.readouterr().out)["memory"]["fits"] is True


def test_help_teaches_without_torch() -> None:
    code = "import sys; from megatron_agent.plan import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'megatron.core', 'matplotlib'} & set(sys.modules)"
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    for text in ("--world-size", "--model.config", "llama-2-70b", "Exit status", "--mfu", "--conversation-tokens"):
        assert text in process.stdout
