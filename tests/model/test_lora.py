"""LoRA adapters on one rank: equal to PEFT's and to merged weights, whatever they are attached to."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from megatron_agent.errors import UserError
from megatron_agent.model.config import PRESETS, LlamaConfig
from megatron_agent.model.lora_config import TARGETS, LoraConfig, is_adapter_key, lora_record, num_adapter_parameters
from tests.model.tiny import random_ids, save_tiny_llama

SUBSETS = [list(TARGETS), ["linear_qkv"], ["linear_proj", "linear_fc1"], ["linear_fc2"]]


def write_checkpoint(root: Path, model: Any, lora: LoraConfig, base: Path, hf: Path) -> Path:
    """Save the adapters of `model` as a training run does."""
    from megatron_agent.files import sha256_file
    from megatron_agent.model import checkpoint_folder
    from megatron_agent.model.checkpoint_tensors import model_sharded_state_dict
    from megatron_agent.model.checkpoint_writer import plan_write

    temporary = checkpoint_folder.begin_checkpoint(root, 1)
    state = {key: value for key, value in model_sharded_state_dict(model).items() if is_adapter_key(key)}
    plan = plan_write({"model": state}, temporary)
    plan.finish(plan.write()[0])
    manifest = sha256_file(base / checkpoint_folder.MANIFEST)
    checkpoint_folder.write_run_file(temporary, {"lora": lora_record(lora, str(base), manifest)})
    checkpoint_folder.copy_hf_files(hf, temporary / checkpoint_folder.HF_FOLDER)
    return checkpoint_folder.commit_checkpoint(temporary, root, 1)


def randomise(model: Any) -> None:
    """Draw B at random: zero would hide everything."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            parameter.data.normal_(generator=generator)


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(random_ids(40)).logits


@pytest.mark.parametrize("targets", SUBSETS, ids=["all", *(" ".join(names) for names in SUBSETS[1:])])
def test_logits_equal_peft_and_merged(targets: list[str], build: Callable[..., Any], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from checkpoints_convert.megatron_to_hf import convert, convert_adapter
    from megatron_agent.model.checkpoint_folder import resolve_checkpoint
    from megatron_agent.model.lora import add_adapters

    hf = tmp_path / "hf"
    save_tiny_llama(hf)
    model = build(hf)
    ids = random_ids(40)
    with torch.no_grad():
        plain = model(ids, None, None)
        lora = LoraConfig(r=4, lora_alpha=6.0, target_modules=targets)
        add_adapters(model, lora, seed=1)
        assert torch.equal(model(ids, None, None), plain)  # B is zero
        randomise(model)
        adapted = model(ids, None, None)[..., :301]
    assert (adapted - plain[..., :301]).abs().max() > 0.1
    base = resolve_checkpoint(tmp_path / "megatron_hf")
    checkpoint = write_checkpoint(tmp_path / "run", model, lora, base, hf)
    convert(checkpoint, tmp_path / "merged")
    convert_adapter(checkpoint, tmp_path / "adapter")

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(hf), tmp_path / "adapter").eval()
    scale = adapted.abs().max().item()
    torch.testing.assert_close(logits_of(peft), adapted, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(logits_of(merged), adapted, rtol=0, atol=1e-5 * scale)
    # PEFT's own merge of the exported adapter gives the same weights as ours.
    ours, theirs = merged.state_dict(), peft.merge_and_unload().state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_merging_keeps_the_dtype_of_the_base(single_rank: None, build: Callable[..., Any], tmp_path: Path) -> None:
    """bf16 weights + fp32 product, rounded once; `--dtype float32` keeps what rounding would lose."""
    from safetensors.torch import load_file

    from checkpoints_convert.megatron_to_hf import convert
    from megatron_agent.model.checkpoint_folder import resolve_checkpoint
    from megatron_agent.model.lora import add_adapters

    hf = tmp_path / "hf"
    save_tiny_llama(hf, torch.bfloat16)
    model = build(hf, torch.bfloat16)
    lora = LoraConfig(r=2, lora_alpha=1.0, target_modules=["linear_fc2"])
    add_adapters(model, lora, seed=1)
    randomise(model)
    checkpoint = write_checkpoint(tmp_path / "run", model, lora, resolve_checkpoint(tmp_path / "megatron_hf"), hf)
    base, merged, wide = (
        load_file(folder / "model.safetensors")
        for folder in (hf, convert(checkpoint, tmp_path / "a"), convert(checkpoint, tmp_path / "b", dtype="float32"))
    )
    for number, layer in enumerate(model.decoder.layers):
        name = f"model.layers.{number}.mlp.down_proj.weight"
        adapter = layer.mlp.linear_fc2.adapter
        expected = base[name].double() + 0.5 * adapter.lora_B.double() @ adapter.lora_A.double()
        torch.testing.assert_close(wide[name].double(), expected, rtol=1e-6, atol=1e-6)
        assert merged[name].dtype == torch.bfloat16
        assert torch.equal(merged[name], wide[name].bfloat16())
    untouched = [name for name in base if "down_proj" not in name]
    assert len(untouched) == len(base) - 4
    assert all(torch.equal(merged[name], base[name]) for name in untouched)


def test_base_keys_do_not_change(build: Callable[..., Any], tmp_path: Path) -> None:
    from megatron_agent.model.lora import add_adapters

    save_tiny_llama(tmp_path / "hf")
    model = build(tmp_path / "hf")
    before = set(model.state_dict())
    sharded = {key: value.key for key, value in model.sharded_state_dict().items()}
    add_adapters(model, LoraConfig(r=4), seed=1)
    after = {key: value.key for key, value in model.sharded_state_dict().items()}
    assert {key for key in model.state_dict() if not is_adapter_key(key)} == before
    assert {key: name for key, name in after.items() if not is_adapter_key(key)} == sharded
    assert len(after) == len(sharded) + 4 * 4 * 2
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(is_adapter_key(name) for name in trained)
    llama = LlamaConfig.from_hf(tmp_path / "hf")
    assert sum(parameter.numel() for parameter in trained.values()) == num_adapter_parameters(llama, LoraConfig(r=4))


def test_first_values_are_pefts(build: Callable[..., Any], tmp_path: Path) -> None:
    """B is zero; A is uniform within 1 / sqrt(inputs), other for every seed, layer and projection."""
    from megatron_agent.model.lora import add_adapters

    save_tiny_llama(tmp_path / "hf")
    seen = set()
    for seed in (1, 2):
        model = build(tmp_path / "hf")
        add_adapters(model, LoraConfig(r=64), seed=seed)
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                assert not parameter.any()
            elif name.endswith("lora_A"):
                bound = 1 / math.sqrt(parameter.shape[1])
                assert 0.95 * bound < parameter.abs().max() <= bound
                assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
                seen.add(parameter[0, :8].sum().item())
    assert len(seen) == 2 * 4 * 4


@pytest.mark.parametrize("granularity", ["full", "selective"])
def test_recomputed_layers_give_their_adapters_gradients(
    granularity: str, build: Callable[..., Any], tmp_path: Path
) -> None:
    """The embedding is frozen: without care nothing that enters a recomputed first layer needs a gradient."""
    from megatron_agent.model.lora import add_adapters

    save_tiny_llama(tmp_path / "hf")
    gradients = []
    for settings in ({}, {"recompute_granularity": granularity}):
        model = build(tmp_path / "hf", **settings).train()
        add_adapters(model, LoraConfig(r=4), seed=1)
        randomise(model)
        model(random_ids(24), None, None, labels=random_ids(24, seed=2)).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    plain, recomputed = gradients
    assert len(plain) == 4 * 4 * 2
    for name, gradient in plain.items():
        assert recomputed[name] is not None, name
        torch.testing.assert_close(recomputed[name], gradient)


class FusedNormLinear(torch.nn.Module):
    """The interface of Transformer Engine's LayerNormLinear as megatron-core's wrapper gives it (no bias)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_norm_weight = torch.nn.Parameter(torch.linspace(0.5, 1.5, 8))
        self.weight = torch.nn.Parameter(torch.randn(12, 8))
        self.return_layernorm_output = False

    def forward(self, x: torch.Tensor) -> tuple[Any, None]:
        normalised = F.rms_norm(x, (8,), self.layer_norm_weight)
        output = F.linear(normalised, self.weight)
        return ((output, normalised) if self.return_layernorm_output else output), None


def test_a_fused_norm_feeds_the_adapter_the_normalised_input(build: Callable[..., Any], tmp_path: Path) -> None:
    from megatron_agent.model.lora import LoraAdapter, _attach

    save_tiny_llama(tmp_path / "hf")
    config = build(tmp_path / "hf").config
    linear = FusedNormLinear()
    adapter = LoraAdapter(linear.weight, "linear_qkv", "name", LoraConfig(r=2, lora_alpha=6.0), config, seed=1)
    adapter.lora_B.data.normal_()
    x = torch.randn(5, 1, 8)
    plain, _ = linear(x)
    _attach(linear, adapter)
    output, bias = linear(x)
    assert isinstance(linear, FusedNormLinear)
    assert bias is None
    delta = 3.0 * adapter.lora_B @ adapter.lora_A
    torch.testing.assert_close(output - plain, F.rms_norm(x, (8,), linear.layer_norm_weight) @ delta.T)


def test_dropout_acts_on_the_adapters_input_in_training_only(build: Callable[..., Any], tmp_path: Path) -> None:
    from megatron_agent.model.lora import LoraAdapter

    save_tiny_llama(tmp_path / "hf")
    config = build(tmp_path / "hf").config
    lora = LoraConfig(r=2, lora_alpha=2.0, lora_dropout=0.5)
    for target in ("linear_qkv", "linear_proj"):
        adapter = LoraAdapter(torch.zeros(3, 1000), target, "name", lora, config, seed=1)
        adapter.lora_A.data.fill_(1)
        adapter.lora_B.data.fill_(1)
        x = torch.ones(1, 1, 1000)
        assert adapter.train()(x)[0, 0, 0].item() != adapter(x)[0, 0, 0].item()
        assert adapter(x)[0, 0, 0].item() == pytest.approx(2000, rel=0.2)  # kept inputs are doubled
        assert adapter.eval()(x)[0, 0, 0].item() == 2000


def test_share_of_trained_parameters_of_7b() -> None:
    """r 16 on all projections of Llama-2-7B: by hand, 16 x (inputs + outputs) of the four fused projections."""
    by_hand = 32 * 16 * ((4096 + 3 * 4096) + (4096 + 4096) + (4096 + 2 * 11008) + (11008 + 4096))
    assert num_adapter_parameters(PRESETS["llama-2-7b"], LoraConfig(r=16)) == by_hand == 33_685_504
    assert by_hand / PRESETS["llama-2-7b"].num_parameters() == pytest.approx(0.005, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"r": -1}, "--lora.r"),
        ({"lora_alpha": 0.0}, "--lora.lora_alpha"),
        ({"lora_alpha": math.nan}, "--lora.lora_alpha"),
        ({"lora_dropout": 1.0}, "--lora.lora_dropout"),
        ({"target_modules": ["q_proj"]}, "--lora.target_modules"),
        ({"target_modules": []}, "--lora.target_modules"),
        ({"target_modules": ["linear_fc1", "linear_fc1"]}, "--lora.target_modules"),
    ],
)
def test_bad_settings_name_the_flag(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        LoraConfig(**settings).check()
