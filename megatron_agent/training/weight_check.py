"""Compare the weights that ranks hold in common: they start equal, get equal updates, and must stay equal bit for bit.

A rank whose copy drifts away (a fault of its memory, a reduction left out) spoils the run without any error.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from megatron_agent.errors import UserError
from megatron_agent.training.model_and_optimizer import Trainer

# One copy of a weight: which weight it is, where that is in the model, and the sum of its bits.
Copy = tuple[tuple[Any, ...], str, int]

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def bit_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor's bits read as integers, int64 `[]`: one pass on the device, no copy."""
    return tensor.detach().view(INTEGERS[tensor.element_size()]).sum(dtype=torch.int64)


def check_common_weights(trainer: Trainer, step: int) -> None:
    """Raise :class:`UserError` on all ranks when a weight that several ranks hold is not the same on them. Collective.

    Compared: all weights over the data-parallel replicas, weights that tensor parallelism does not divide (norms)
    over the tensor-parallel ranks too, and the tied embedding of the first and the last pipeline stage. Call it
    between the backward pass of `step` and its update: then all weights are complete on every rank, and used. The
    update ends with gathering each weight from the data-parallel rank that holds its optimizer state, which mends or
    spreads a difference between replicas, so after it there is none to be found.
    """
    copies = list(_copies(trainer.gpt_models))
    sums = torch.stack([total for _, _, total in copies]).tolist()  # one wait for the device
    mine: list[Copy] = [(key, name, total) for (key, name, _), total in zip(copies, sums, strict=True)]
    gathered: list[list[Copy]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(gathered, mine)
    problems = differences(gathered)
    if problems:
        shown = "\n  ".join(problems[:8])
        raise UserError(
            f"ranks hold different weights before the update of step {step}: {len(problems)} tensors differ\n"
            f"  {shown}\n"
            "Checkpoints since the last check without a difference may hold it too: delete these and start again. If "
            "it comes back, suspect the hardware of the ranks in the smaller groups"
        )


def differences(gathered: Sequence[Sequence[Copy]]) -> list[str]:
    """Return a line for each weight whose copies differ: its name, and the ranks that agree with one another."""
    groups: dict[tuple[Any, ...], tuple[str, dict[int, list[int]]]] = {}
    for rank, copies in enumerate(gathered):
        for key, name, total in copies:
            by_sum = groups.setdefault(key, (name, {}))[1]
            by_sum.setdefault(total, []).append(rank)
    return [
        f"{name}: " + " and ".join(f"ranks {ranks}" for ranks in sorted(by_sum.values(), key=len)) + " differ"
        for name, by_sum in groups.values()
        if len(by_sum) > 1
    ]


def _copies(gpt_models: Sequence[Any]) -> Iterator[tuple[tuple[Any, ...], str, torch.Tensor]]:
    from megatron.core import parallel_state

    stage = parallel_state.get_pipeline_model_parallel_rank()
    tensor_rank = parallel_state.get_tensor_model_parallel_rank()
    for chunk, model in enumerate(gpt_models):
        for name, weight in model.named_parameters():
            divided = getattr(weight, "tensor_model_parallel", False)
            key: tuple[Any, ...] = (stage, chunk, name, tensor_rank if divided else None)
            yield key, f"pipeline stage {stage}, {name}", bit_sum(weight)
        if model.share_embeddings_and_output_weights and (model.pre_process or model.post_process):
            weight = model.shared_embedding_or_output_weight()
            yield ("tied embedding", tensor_rank), "tied embedding of the first and last stage", bit_sum(weight)
