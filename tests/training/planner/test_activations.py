"""The activation terms are the tensors that autograd saves in a forward pass of the real model."""

from itertools import product

import pytest
import torch

from megatron_agent.model import cpu_runtime
from megatron_agent.model.attention import packed_seq_params
from megatron_agent.model.builder import build_gpt_model, transformer_config
from megatron_agent.model.kernels import local_switches
from megatron_agent.model.layout import ParallelConfig
from megatron_agent.model.parallel import seed_model_parallel
from megatron_agent.training.planner.activations import Backend, Workload, chunk_terms, total
from megatron_agent.training.planner.ranks import fake_process_group
from tests.training.planner.shapes import llama

TOKENS = 1024
CPU = Backend.from_switches(local_switches(), cuda=False)
LAYOUTS = {
    "TP1": ParallelConfig(),
    "TP2": ParallelConfig(tensor_model_parallel_size=2),
    "TP2_SP": ParallelConfig(tensor_model_parallel_size=2, sequence_parallel=True),
}


def saved_bytes(work: Workload) -> int:
    """Run a forward pass and sum the distinct storages saved for the backward pass, without the weights."""
    config = transformer_config(
        work.llama,
        work.parallel,
        params_dtype=torch.bfloat16 if work.bf16 else torch.float32,
        hidden_dropout=work.hidden_dropout,
        recompute_granularity=work.recompute_granularity,
        recompute_num_layers=work.recompute_num_layers,
    )
    with fake_process_group(work.parallel, work.tp, 0):
        seed_model_parallel(1)
        model = build_gpt_model(work.llama, config)
        weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        storages = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage  # kept, or its address would be given to another
            return tensor

        tokens = torch.randint(work.llama.vocab_size, (1, TOKENS))
        borders = torch.arange(0, TOKENS + 1, TOKENS // 16, dtype=torch.int32)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(
                tokens,
                torch.arange(TOKENS).unsqueeze(0),
                attention_mask=None,
                labels=tokens,
                trained_positions=torch.arange(1, TOKENS, 2),
                packed_seq_params=packed_seq_params(borders),
            )
    return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in weights)


CASES = [
    *product(LAYOUTS, [False], [None, "selective", "full"], [0.0, 0.1], [6]),
    *product(["TP1", "TP2_SP"], [True], [None, "selective", "full"], [0.1], [2]),
]


@pytest.mark.parametrize(("layout", "bf16", "recompute", "dropout", "groups"), CASES)
def test_terms_are_what_autograd_saves(
    layout: str, bf16: bool, recompute: str | None, dropout: float, groups: int
) -> None:
    cpu_runtime.install()
    work = Workload(
        llama=llama(hidden_size=96, intermediate_size=256, num_hidden_layers=4, num_key_value_heads=groups),
        parallel=LAYOUTS[layout],
        backend=CPU,
        bf16=bf16,
        micro_batch_size=1,
        seq_length=TOKENS,
        hidden_dropout=dropout,
        recompute_granularity=recompute,
        recompute_num_layers=2,
        trained_share=0.5,
    )
    estimate = total(chunk_terms(work, 4, first=True, last=True))
    assert estimate == pytest.approx(saved_bytes(work), rel=1e-3)
