"""How a model is laid over ranks, and which layouts are possible. No torch import: readable from `--help`."""

from dataclasses import dataclass, fields

from megatron_agent.errors import UserError
from megatron_agent.model.config import LlamaConfig, padded_vocab_size


@dataclass
class ParallelConfig:
    """How the model is divided over ranks; whatever is left of the world size becomes data parallelism."""

    tensor_model_parallel_size: int = 1
    """Ranks that share each layer's weights; divides heads, key/value heads and the vocabulary."""
    pipeline_model_parallel_size: int = 1
    """Ranks that share the layers, in order."""
    sequence_parallel: bool = False
    """Divide norms and dropouts along the sequence too (saves activations; needs tensor parallelism)."""
    virtual_pipeline_model_parallel_size: int | None = None
    """Groups of layers on each pipeline rank, interleaved: a smaller bubble for more communication."""
    num_layers_in_first_pipeline_stage: int | None = None
    """Layers of the first pipeline rank, where it should differ from the others (it holds the embedding too)."""
    num_layers_in_last_pipeline_stage: int | None = None
    """Layers of the last pipeline rank, where it should differ from the others (it holds the output layer too)."""
    context_parallel_size: int = 1
    """Ranks that share each row's tokens; needs CUDA and Transformer Engine."""


def check_layout(llama: LlamaConfig, parallel: ParallelConfig, world_size: int, seq_length: int | None = None) -> int:
    """Return the data-parallel size of this layout; `UserError` naming every flag that does not fit.

    `seq_length` is the length of a packed row in tokens; given, it is checked against sequence parallelism too.
    """
    tp, pp, cp = (
        parallel.tensor_model_parallel_size,
        parallel.pipeline_model_parallel_size,
        parallel.context_parallel_size,
    )
    problems = [
        f"{field.name}: expected a whole number of 1 or more, got {value!r}"
        for field in fields(parallel)
        if field.name != "sequence_parallel"
        and (value := getattr(parallel, field.name)) is not None
        and (isinstance(value, bool) or value < 1)
    ]
    if problems:
        raise UserError("this layout is impossible:\n  " + "\n  ".join(problems))
    divisible = (
        ("num_attention_heads", llama.num_attention_heads),
        ("num_key_value_heads", llama.num_key_value_heads),
        ("intermediate_size", llama.intermediate_size),
        ("padded vocabulary", padded_vocab_size(llama.vocab_size)),
    )
    problems += [
        f"tensor_model_parallel_size={tp} does not divide {name}={size}" for name, size in divisible if size % tp
    ]
    problems += _pipeline_problems(llama, parallel)
    if world_size % (tp * pp * cp):
        sizes = {"tensor_model_parallel_size": tp, "pipeline_model_parallel_size": pp}
        sizes |= {"context_parallel_size": cp} if cp > 1 else {}
        problems.append(
            f"world size {world_size} (torchrun --nproc-per-node x nodes) is not a multiple of "
            f"{' x '.join(sizes)} = {' x '.join(map(str, sizes.values()))} = {tp * pp * cp}"
        )
    if parallel.sequence_parallel and tp == 1:
        problems.append("sequence_parallel=true needs tensor_model_parallel_size > 1, got 1")
    if parallel.sequence_parallel and seq_length is not None and seq_length % tp:
        problems.append(
            f"sequence_parallel=true divides each row over {tp} ranks, which do not divide seq_length={seq_length}"
        )
    if problems:
        raise UserError("this layout does not fit the model:\n  " + "\n  ".join(problems))
    return world_size // (tp * pp * cp)


def layers_per_stage(num_layers: int, parallel: ParallelConfig) -> list[int]:
    """Return the number of layers of each pipeline rank, all its virtual stages together, of a layout that fits."""
    pp = parallel.pipeline_model_parallel_size
    layers = [0] * pp
    fixed = {}
    if parallel.num_layers_in_last_pipeline_stage is not None:
        fixed[pp - 1] = parallel.num_layers_in_last_pipeline_stage
    if parallel.num_layers_in_first_pipeline_stage is not None:
        fixed[0] = parallel.num_layers_in_first_pipeline_stage
    others = pp - len(fixed)
    for rank in range(pp):
        layers[rank] = fixed[rank] if rank in fixed else (num_layers - sum(fixed.values())) // others
    return layers


def _pipeline_problems(llama: LlamaConfig, parallel: ParallelConfig) -> list[str]:
    """What is wrong with the division of the layers over the pipeline."""
    pp, vpp = parallel.pipeline_model_parallel_size, parallel.virtual_pipeline_model_parallel_size
    first, last = parallel.num_layers_in_first_pipeline_stage, parallel.num_layers_in_last_pipeline_stage
    if pp == 1:
        given = {
            "virtual_pipeline_model_parallel_size": vpp,
            "num_layers_in_first_pipeline_stage": first,
            "num_layers_in_last_pipeline_stage": last,
        }
        return [
            f"{name}={value} needs pipeline_model_parallel_size > 1, got 1"
            for name, value in given.items()
            if value is not None
        ]
    fixed = [value for value in (first, last) if value is not None]
    left, ranks = llama.num_hidden_layers - sum(fixed), pp - len(fixed)
    if (left % ranks or left < ranks) if ranks else left:
        if not fixed:
            return [f"pipeline_model_parallel_size={pp} does not divide num_hidden_layers={llama.num_hidden_layers}"]
        return [
            f"num_layers_in_first_pipeline_stage={first} and num_layers_in_last_pipeline_stage={last} leave {left} of "
            f"num_hidden_layers={llama.num_hidden_layers} to {ranks} pipeline ranks, which do not divide them"
        ]
    if vpp is None:
        return []
    return [
        f"virtual_pipeline_model_parallel_size={vpp} does not divide the {layers} layers of a pipeline rank"
        for layers in sorted(set(layers_per_stage(llama.num_hidden_layers, parallel)))
        if layers % vpp
    ]
