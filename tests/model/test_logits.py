"""Megatron-core's logits and losses against transformers', packed and unpacked (bar 5)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model.tiny import VARIANTS, random_ids, save_tiny_llama

LENGTHS = [7, 1, 30, 90]


def run(model: Any, ids: torch.Tensor, lengths: list[int] | None = None, labels: torch.Tensor | None = None) -> Any:
    """Logits (or losses, with labels) for ids `[1, t]`, packed in segments when `lengths` are given."""
    from megatron_agent.model.attention import packed_seq_params

    packed = None
    if lengths is not None:
        bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        packed = packed_seq_params(bounds)
    positions = torch.arange(ids.shape[1])[None]
    with torch.no_grad():
        return model(ids, positions, None, labels=labels, packed_seq_params=packed)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_those_of_transformers(variant: str, build: Callable[..., Any], tmp_path: Path) -> None:
    hf = save_tiny_llama(tmp_path / "hf", **VARIANTS[variant])
    model = build(tmp_path / "hf")
    ids = random_ids(200)
    with torch.no_grad():
        expected = hf(ids).logits
    assert expected.std() > 0.5  # a model that says something
    real = expected.shape[-1]
    torch.testing.assert_close(run(model, ids)[..., :real], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(run(model, ids, [200])[..., :real], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("variant", ["grouped_tied", "rope_llama3"])
def test_packed_segments_equal_conversations_run_one_by_one(
    variant: str, build: Callable[..., Any], tmp_path: Path
) -> None:
    hf = save_tiny_llama(tmp_path / "hf", **VARIANTS[variant])
    model = build(tmp_path / "hf")
    ids = random_ids(sum(LENGTHS))
    packed = run(model, ids, LENGTHS)
    for number, (segment, logits) in enumerate(
        zip(ids.split(LENGTHS, dim=1), packed.split(LENGTHS, dim=1), strict=True)
    ):
        with torch.no_grad():
            expected = hf(segment).logits
        torch.testing.assert_close(logits[..., : expected.shape[-1]], expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(logits, run(model, segment, [LENGTHS[number]]), atol=1e-5, rtol=0)


def test_loss_equals_that_of_transformers_though_the_vocabulary_is_padded(
    build: Callable[..., Any], tmp_path: Path
) -> None:
    hf = save_tiny_llama(tmp_path / "hf")  # 301 words, 83 rows of padding
    model = build(tmp_path / "hf")
    ids, labels = random_ids(sum(LENGTHS)), random_ids(sum(LENGTHS), seed=2)
    losses = run(model, ids, LENGTHS, labels)
    assert losses.shape == labels.shape
    for segment, answer, loss in zip(
        ids.split(LENGTHS, 1), labels.split(LENGTHS, 1), losses.split(LENGTHS, 1), strict=True
    ):
        with torch.no_grad():
            expected = torch.nn.functional.cross_entropy(hf(segment).logits[0], answer[0], reduction="none")
        torch.testing.assert_close(loss[0], expected, atol=1e-4, rtol=1e-5)


def test_gradients_equal_those_of_transformers(build: Callable[..., Any], tmp_path: Path) -> None:
    from checkpoints_convert.mapping import join_qkv
    from megatron_agent.model.config import LlamaConfig

    hf = save_tiny_llama(tmp_path / "hf", tie_word_embeddings=True)
    model = build(tmp_path / "hf").train()
    ids, labels = random_ids(40), random_ids(40, seed=2)
    torch.nn.functional.cross_entropy(hf(ids).logits[0], labels[0], reduction="sum").backward()
    model(ids, torch.arange(40)[None], None, labels=labels).sum().backward()
    ours = dict(model.named_parameters())
    theirs = {name: parameter.grad for name, parameter in hf.named_parameters()}

    embedding = ours["embedding.word_embeddings.weight"].grad
    torch.testing.assert_close(embedding[:301], theirs["model.embed_tokens.weight"], atol=1e-3, rtol=1e-3)
    assert not embedding[301:].any()  # padding rows learn nothing
    attention = "model.layers.1.self_attn."
    qkv = join_qkv([theirs[f"{attention}{x}_proj.weight"] for x in "qkv"], LlamaConfig.from_hf(tmp_path / "hf"))
    torch.testing.assert_close(
        ours["decoder.layers.1.self_attention.linear_qkv.weight"].grad, qkv, atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(
        ours["decoder.layers.1.input_layernorm.weight"].grad,
        theirs["model.layers.1.input_layernorm.weight"],
        atol=1e-3,
        rtol=1e-3,
    )


@pytest.mark.parametrize("granularity", ["selective", "full"])
def test_recomputation_changes_no_gradient(granularity: str, build: Callable[..., Any], tmp_path: Path) -> None:
    from megatron_agent.model.attention import packed_seq_params
    from megatron_agent.model.parallel import seed_model_parallel

    save_tiny_llama(tmp_path / "hf", num_hidden_layers=2)
    bounds = torch.tensor([0, 10, 40], dtype=torch.int32)
    gradients = []
    for settings in ({}, {"recompute_granularity": granularity}):
        model = build(tmp_path / "hf", hidden_dropout=0.1, attention_dropout=0.1, **settings).train()
        seed_model_parallel(5)
        packed = packed_seq_params(bounds)
        model(random_ids(40), None, None, labels=random_ids(40, seed=2), packed_seq_params=packed).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_bf16_is_as_near_to_fp32_as_transformers_is(build: Callable[..., Any], tmp_path: Path) -> None:
    hf = save_tiny_llama(tmp_path / "hf", dtype=torch.bfloat16)
    model = build(tmp_path / "hf", params_dtype=torch.bfloat16).bfloat16()
    ids = random_ids(50)
    with torch.no_grad():
        theirs = hf(ids).logits.float()
        truth = hf.float()(ids).logits
    ours = run(model, ids, [50])[..., :301].float()
    assert (ours - truth).square().mean() < 1.1 * (theirs - truth).square().mean()
