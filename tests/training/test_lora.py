"""LoRA: every layout trains like one rank and like PEFT, exports to PEFT and merged, resumes, keeps the base's bits."""

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from checkpoints_convert.megatron_to_hf import main as megatron_to_hf
from checkpoints_convert.torch_dist import TensorReader
from checkpoints_convert.verify import verify
from megatron_agent.dataset.rows import PackedRows
from megatron_agent.errors import UserError
from megatron_agent.files import sha256_file
from megatron_agent.training.config import parse_config
from megatron_agent.training.lora_checkpoint import find_base
from megatron_agent.training.schedule import learning_rate
from tests.distributed import run_distributed
from tests.training.conftest import TinyInputs, read_metrics, write_tiny_config

WORKER = str(Path(__file__).with_name("several_runs.py"))
STEPS = 10
LORA = {"r": 4, "lora_alpha": 8.0}
TRAINING = {"train_iters": STEPS, "eval_interval": 0}
TP2, PP2 = {"tensor_model_parallel_size": 2}, {"pipeline_model_parallel_size": 2}
TP2_SP = {**TP2, "sequence_parallel": True}
# name -> (ranks, layout, changes of the training section)
RUNS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "one": (1, {}, {}),
    "full_recompute": (1, {}, {"recompute_granularity": "full"}),
    "selective_recompute": (1, {}, {"recompute_granularity": "selective"}),
    "TP2": (2, TP2, {}),
    "TP2_SP": (2, TP2_SP, {}),
    "TP2_SP_full_recompute": (2, TP2_SP, {"recompute_granularity": "full"}),
    "PP2": (2, PP2, {}),
    "PP2_virtual2": (2, PP2 | {"virtual_pipeline_model_parallel_size": 2}, {}),
    "DP2": (2, {}, {}),
    "TP2_PP2": (4, TP2 | PP2, {}),
}
BF16_DROPOUT = {"precision": "bf16", "hidden_dropout": 0.1}
COMPARED = ("step", "loss", "grad_norm", "lr", "trained_tokens", "source_loss")


@dataclass(frozen=True)
class Finished:
    """Folder of the finished runs, one below it per name, with what they started from."""

    folder: Path
    inputs: TinyInputs

    def checkpoint(self, name: str, step: int = STEPS) -> Path:
        return self.folder / name / "checkpoints" / f"iter_{step:07d}"

    def export(self, name: str, *flags: str) -> Path:
        """Convert the last checkpoint of a run, once, and return the folder."""
        output = self.folder / f"{name}.export{''.join(flags)}"
        if not output.exists():
            megatron_to_hf(["--megatron", str(self.checkpoint(name)), "--output", str(output), *flags])
        return output

    def adapter(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.export(name, "--adapter") / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def finished(tiny_inputs: TinyInputs, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Every run of `RUNS`, and the resumed ones, in one launch per number of ranks."""
    folder = tmp_path_factory.mktemp("lora")

    def config(name: str, layout: dict[str, Any], training: dict[str, Any], **lora: Any) -> str:
        saved = {"save_interval": 5 if name in ("TP2", "bf16") else STEPS, "keep_last": 0}
        sections = {"parallel": layout, "training": TRAINING | training, "checkpoint": saved, "lora": LORA | lora}
        return str(write_tiny_config(tiny_inputs, folder, name, optimizer={"lr": 2e-2}, **sections))

    arguments: dict[int, list[str]] = {1: [], 2: [], 4: []}
    arguments[2].append(config("TP2_dropout", TP2, {}, lora_dropout=0.5))
    for name, (nproc, layout, training) in RUNS.items():
        arguments[nproc].append(config(name, layout, training))
    stop = "checkpoints/iter_0000005"
    for name, source, layout, training, lora in (
        ("PP2_after_TP2", "TP2", PP2, {}, {}),
        ("bf16_resumed", "bf16", TP2_SP, BF16_DROPOUT, {"lora_dropout": 0.1}),
    ):
        if source not in RUNS:
            arguments[2].append(config(source, layout, training, **lora))
        arguments[2] += [f"{folder / source / stop}:{folder / name / stop}", config(name, layout, training, **lora)]
    for nproc, values in arguments.items():
        run_distributed(WORKER, nproc, values, timeout=400)
    return Finished(folder, tiny_inputs)


def losses(finished: Finished, name: str) -> list[float]:
    return [record["loss"] for record in read_metrics(finished.folder / name)]


@pytest.mark.parametrize("name", [name for name in RUNS if name != "one"])
def test_layout_equals_one_rank(name: str, finished: Finished) -> None:
    assert len(losses(finished, name)) == STEPS
    assert losses(finished, name) == pytest.approx(losses(finished, "one"), rel=1e-5)
    adapter, reference = finished.adapter(name), finished.adapter("one")
    assert adapter.keys() == reference.keys()
    for key, tensor in reference.items():
        torch.testing.assert_close(adapter[key], tensor, rtol=0, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")


def test_every_adapter_moves(finished: Finished) -> None:
    """Guards the tests above: B starts at zero, and a recomputed layer could silently be left out of the backward."""
    for name in ("one", "full_recompute"):
        tensors = finished.adapter(name)
        assert len(tensors) == 4 * 7 * 2  # layers, projections, A and B
        for key, tensor in tensors.items():
            assert tensor.abs().max() > 1e-3, key


def hf_logits(model: Any) -> torch.Tensor:
    ids = torch.randint(301, (1, 48), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model.eval()(ids).logits


def test_peft_and_the_merged_model_compute_the_same_logits(finished: Finished) -> None:
    """Real PEFT loads the adapter onto the Hugging Face model."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(finished.inputs.hf)
    plain = hf_logits(base)
    adapted = hf_logits(PeftModel.from_pretrained(base, finished.export("TP2_PP2", "--adapter")))
    merged = hf_logits(AutoModelForCausalLM.from_pretrained(finished.export("TP2_PP2")))
    assert (adapted - plain).abs().max() > 0.1
    torch.testing.assert_close(merged, adapted, rtol=0, atol=1e-5)


def test_training_equals_peft(finished: Finished) -> None:
    """transformers + PEFT + torch's AdamW from the same first adapters: the same losses for ten steps.

    The fused projections share one A, so the reference's q, k and v (gate and up) share theirs.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = parse_config(["--config", str(finished.folder / "one.yaml")])
    rows = PackedRows(config.data, config.num_rows)
    settings = LoraConfig(r=4, lora_alpha=8.0, target_modules="all-linear")
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(finished.inputs.hf, attn_implementation="eager"), settings
    )
    layers = model.base_model.model.model.layers
    for number, layer in enumerate(layers):
        attention, mlp = layer.self_attn, layer.mlp
        groups = {
            "linear_qkv": [attention.q_proj, attention.k_proj, attention.v_proj],
            "linear_proj": [attention.o_proj],
            "linear_fc1": [mlp.gate_proj, mlp.up_proj],
            "linear_fc2": [mlp.down_proj],
        }
        for target, projections in groups.items():
            first = projections[0].lora_A["default"].weight
            first.data = initial_a(config.training.seed, number, target, first.shape)
            for projection in projections[1:]:
                projection.lora_A["default"].weight = first
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        betas=(config.optimizer.adam_beta1, config.optimizer.adam_beta2),
        eps=config.optimizer.adam_eps,
        weight_decay=config.optimizer.weight_decay,
    )
    ours = losses(finished, "one")
    for step in range(1, STEPS + 1):
        size = config.training.global_batch_size
        total, count = torch.zeros(()), 0
        for number in range((step - 1) * size, step * size):
            loss, tokens = packed_loss(model, rows.row(number))
            total, count = total + loss, count + tokens
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_grad)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, STEPS, config.optimizer)
        optimizer.step()
        optimizer.zero_grad()
        assert (total / count).item() == pytest.approx(ours[step - 1], rel=1e-4), step
    with model.disable_adapter(), torch.no_grad():  # the adapters count by now
        unadapted = sum(packed_loss(model, rows.row(number))[0] for number in range((STEPS - 1) * size, STEPS * size))
    assert abs(unadapted.item() / count - ours[-1]) > 1e-2


def initial_a(seed: int, layer: int, target: str, shape: torch.Size) -> torch.Tensor:
    """The documented first value of A: Kaiming-uniform from a generator seeded by seed, layer and projection."""
    digest = hashlib.blake2b(f"{seed} decoder.layers.{layer}.{target}".encode(), digest_size=6).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
    return torch.nn.init.kaiming_uniform_(torch.empty(shape), a=5**0.5, generator=generator)


def packed_loss(model: Any, row: Any) -> tuple[torch.Tensor, int]:
    """Sum of the losses of a packed row's trained tokens, segment by segment, and their number."""
    total = torch.zeros(())
    for start, end in itertools.pairwise(row.cu_seqlens.tolist()):
        logits = model(torch.from_numpy(row.tokens[start:end]).long()[None]).logits[0]
        token_losses = F.cross_entropy(logits, torch.from_numpy(row.labels[start:end]).long(), reduction="none")
        total = total + (token_losses * torch.from_numpy(row.loss_mask[start:end])).sum()
    return total, int(row.loss_mask.sum())


@pytest.mark.parametrize("name", [*RUNS, "bf16", "bf16_resumed"])
def test_only_adapters_are_trained(name: str, finished: Finished) -> None:
    """Frozen weights keep their bits; gradient buffers and optimizer state are the adapters' alone."""
    reports = [json.loads(file.read_text()) for file in (finished.folder / name).glob("rank*.json")]
    assert reports
    for report in reports:
        assert report["frozen"] > 10
        assert report["changed"] == []
        assert all(".adapter.lora_" in parameter for parameter in report["trained"])
        assert report["with_gradient_buffer"] == report["trained"]
        assert report["state_elements"] == sum(report["trained"].values()) // (2 if name == "DP2" else 1)


@pytest.mark.parametrize("name", ["TP2", "TP2_SP", "TP2_dropout", "bf16"])
def test_tensor_parallel_ranks_agree_on_whole_matrices(name: str, finished: Finished) -> None:
    """Without sequence parallelism nothing sums their gradients: every rank must compute the same, dropout included."""
    first, second = (json.loads((finished.folder / name / f"rank{rank}.json").read_text())["whole"] for rank in (0, 1))
    assert len(first) == 16  # A of qkv and fc1, B of proj and fc2, in four layers
    assert first == second


def test_checkpoints_hold_adapters_only(finished: Finished) -> None:
    whole = sum(file.stat().st_size for file in finished.inputs.megatron.rglob("*.distcp"))
    saved = finished.checkpoint("TP2_PP2")
    assert all(".adapter.lora_" in key for key in TensorReader(saved).shapes())
    assert sum(file.stat().st_size for file in saved.rglob("*.distcp")) < whole
    record = json.loads((saved / "run.json").read_text())["lora"]
    assert record["r"] == 4
    assert record["base"]["checkpoint"] == str(finished.inputs.megatron / "iter_0000000")


def test_resume_is_identical(finished: Finished) -> None:
    """bf16, TP2 with sequence parallelism, dropout in the layers and on the adapters' inputs."""
    whole, resumed = (read_metrics(finished.folder / name) for name in ("bf16", "bf16_resumed"))
    assert [record["step"] for record in resumed] == [6, 7, 8, 9, 10]
    for record, reference in zip(resumed, whole[5:], strict=True):
        assert {name: record[name] for name in COMPARED} == {name: reference[name] for name in COMPARED}
    assert all(
        torch.equal(tensor, finished.adapter("bf16")[key]) for key, tensor in finished.adapter("bf16_resumed").items()
    )


def test_resume_under_another_layout(finished: Finished) -> None:
    assert losses(finished, "PP2_after_TP2") == pytest.approx(losses(finished, "TP2")[5:], rel=1e-5)
    for key, tensor in finished.adapter("TP2").items():
        torch.testing.assert_close(finished.adapter("PP2_after_TP2")[key], tensor, rtol=0, atol=1e-5)


@pytest.fixture
def resume(finished: Finished) -> Callable[..., None]:
    """Return a function: check a resume of the run "one" with changed settings."""

    def check(**changes: dict[str, Any]) -> None:
        sections = {"lora": LORA, **changes}
        folder = finished.folder / "changed"
        config = parse_config(
            ["--config", str(write_tiny_config(finished.inputs, folder.parent, "changed", **sections))]
        )
        find_base(config, finished.checkpoint("one"))

    return check


def test_the_same_settings_resume(resume: Callable[..., None]) -> None:
    resume()
    resume(lora={**LORA, "lora_dropout": 0.5})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": {"r": 8, "lora_alpha": 8.0}}, "--lora.r was 4, is 8"),
        ({"lora": {"r": 0}}, "--lora.r was 4, is 0"),
        ({"lora": {"r": 4, "lora_alpha": 16.0}}, "--lora.lora_alpha was 8.0, is 16.0"),
        ({"lora": {**LORA, "target_modules": ["linear_qkv"]}}, "--lora.target_modules was"),
    ],
)
def test_other_adapters_are_refused_on_resume(changes: dict, message: str, resume: Callable[..., None]) -> None:
    with pytest.raises(UserError, match=message):
        resume(**changes)


def test_other_checkpoints_are_refused(finished: Finished, resume: Callable[..., None], tmp_path: Path) -> None:
    from checkpoints_convert.hf_to_megatron import convert
    from tests.model.tiny import save_tiny_llama

    save_tiny_llama(tmp_path / "hf")
    other = convert(tmp_path / "hf", tmp_path / "megatron")
    with pytest.raises(UserError, match=f"--model.checkpoint was {finished.inputs.megatron}.*, is {other}"):
        resume(model={"checkpoint": str(other)})
    with pytest.raises(UserError, match="is not the base checkpoint"):
        megatron_to_hf(
            ["--megatron", str(finished.checkpoint("one")), "--output", str(tmp_path / "out"), "--base", str(other)]
        )
    with pytest.raises(UserError, match="holds LoRA adapters, no whole model"):
        verify(finished.inputs.hf, finished.checkpoint("one"))
    with pytest.raises(UserError, match="holds a whole model, no LoRA adapters"):
        megatron_to_hf(["--megatron", str(other), "--output", str(tmp_path / "out"), "--adapter"])
    with pytest.raises(UserError, match="needs no base checkpoint"):
        megatron_to_hf(["--megatron", str(other), "--output", str(tmp_path / "out"), "--base", str(other)])
    assert not (tmp_path / "out").exists()


def test_a_run_does_not_start_from_adapters(finished: Finished, tmp_path: Path) -> None:
    adapters = str(finished.checkpoint("one"))
    config = write_tiny_config(finished.inputs, tmp_path, model={"checkpoint": adapters}, lora=LORA)
    with pytest.raises(UserError, match="holds LoRA adapters only: merge it"):
        find_base(parse_config(["--config", str(config)]), None)


def test_a_moved_base_is_found_with_its_flag(finished: Finished, tmp_path: Path) -> None:
    run = tmp_path / "iter_0000010"
    shutil.copytree(finished.checkpoint("one"), run)
    record = json.loads((run / "run.json").read_text())
    record["lora"]["base"]["checkpoint"] = str(tmp_path / "gone")
    (run / "run.json").write_text(json.dumps(record))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"]["run.json"] = {"size": (run / "run.json").stat().st_size, "sha256": sha256_file(run / "run.json")}
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"gone, which is not there; give its place with\s+--base"):
        megatron_to_hf(["--megatron", str(run), "--output", str(tmp_path / "out")])
    megatron_to_hf(["--megatron", str(run), "--output", str(tmp_path / "out"), "--base", str(finished.inputs.megatron)])
    merged, reference = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "out", finished.export("one"))
    )
    assert all(torch.equal(tensor, merged[key]) for key, tensor in reference.items())
