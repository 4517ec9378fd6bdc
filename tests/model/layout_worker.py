"""Losses, logits and norm gradients of one checkpoint under a layout; alone, or as a torchrun script (__main__)."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from megatron_agent.model.config import LlamaConfig
from megatron_agent.model.layout import ParallelConfig
from megatron_agent.model.parallel import destroy_model_parallel, initialize_model_parallel
from tests.model.tiny import random_ids

TOKENS = 64
BOUNDS = [0, 20, 23, 64]


def measure(checkpoint: Path, parallel: ParallelConfig) -> dict[str, Any]:
    """Run one forward and backward pass; every rank returns what it knows."""
    initialize_model_parallel(parallel, seed=1)
    from megatron.core import parallel_state
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
    from megatron.core.pipeline_parallel import get_forward_backward_func

    from megatron_agent.model.attention import packed_seq_params
    from megatron_agent.model.builder import build_gpt_model, transformer_config
    from megatron_agent.model.checkpoint_tensors import load_model_weights

    llama = LlamaConfig.from_hf(checkpoint / "hf")
    config = transformer_config(
        llama, parallel, params_dtype=torch.float32, finalize_model_grads_func=finalize_model_grads
    )
    model = build_gpt_model(llama, config)
    load_model_weights(model, checkpoint)
    packed = packed_seq_params(torch.tensor(BOUNDS, dtype=torch.int32))
    inputs = {"input_ids": random_ids(TOKENS), "position_ids": None, "attention_mask": None}
    seen: dict[str, Any] = {}

    def forward_step(data: object, stage: torch.nn.Module) -> Any:
        labels = seen.get("labels")
        output = stage(**inputs, labels=labels, packed_seq_params=packed, runtime_gather_output=labels is None)

        def loss(result: torch.Tensor) -> Any:
            if "labels" not in seen:
                seen["logits"] = result
                return result.sum(), torch.tensor(1, dtype=torch.int), {}
            seen["losses"] = result
            return result.sum(), torch.tensor(TOKENS, dtype=torch.int), {}

        return output, loss

    def run(stage: torch.nn.Module, forward_only: bool) -> None:
        get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=None,
            model=[stage],
            num_microbatches=1,
            seq_length=TOKENS,
            micro_batch_size=1,
            decoder_seq_length=TOKENS,
            forward_only=forward_only,
        )

    run(model, forward_only=True)
    seen["labels"] = random_ids(TOKENS, seed=2)
    ddp_config = DistributedDataParallelConfig(grad_reduce_in_fp32=True, use_distributed_optimizer=True)
    divided = DistributedDataParallel(config, ddp_config, model)
    divided.zero_grad_buffer()
    run(divided, forward_only=False)

    first_layer = parallel_state.get_pipeline_model_parallel_rank() * len(model.decoder.layers)
    norms = {
        f"{first_layer + number}.{name}": getattr(layer, name).weight.main_grad.tolist()
        for number, layer in enumerate(model.decoder.layers)
        for name in ("input_layernorm", "pre_mlp_layernorm")
    }
    outputs = {key: seen[key][0].tolist() for key in ("logits", "losses") if key in seen}
    return {"norms": norms, **outputs}


if __name__ == "__main__":
    # argv: checkpoint folder, output folder, then layouts as tp,pp,sp - all in one launch, imports cost the most
    import torch.distributed

    for layout in sys.argv[3:]:
        tp, pp, sequence_parallel = map(int, layout.split(","))
        result = measure(Path(sys.argv[1]), ParallelConfig(tp, pp, bool(sequence_parallel)))
        rank = torch.distributed.get_rank()
        (Path(sys.argv[2]) / f"{layout}.{rank}.json").write_text(json.dumps(result))
    destroy_model_parallel()
