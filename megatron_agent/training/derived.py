"""What a configuration implies, printed before the first step."""

import torch

from megatron_agent.dataset.rows import PackedRows
from megatron_agent.model.config import LlamaConfig, padded_vocab_size
from megatron_agent.model.cpu_products import bf16_products_reason
from megatron_agent.model.lora_config import num_adapter_parameters
from megatron_agent.training.config import TrainConfig
from megatron_agent.training.hardware import training_peak
from megatron_agent.training.model_and_optimizer import Trainer
from megatron_agent.training.telemetry import print_derived


def mfu_peak(config: TrainConfig) -> tuple[float | None, str]:
    """Return the peak TFLOP/s of one rank's device, or None, and the line that says so."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return training_peak(config, device, torch.backends.cuda.matmul.allow_tf32)


def parameters_per_rank(trainer: Trainer) -> list[int]:
    """Return the number of parameters each rank holds, vocabulary padding included."""
    counts = [0] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(
        counts, sum(weight.numel() for model in trainer.gpt_models for weight in model.parameters())
    )
    return counts


def print_switches(trainer: Trainer) -> None:
    """Print which fused kernels and overlaps this run uses, and why not the others."""
    lines = [(switch.name, switch.on, switch.reason) for switch in trainer.switches.values()]
    lines.append(("bf16_products_in_fp32", *bf16_products_reason()))
    print_derived([(name, f"{'on ' if on else 'off'}  {reason}") for name, on, reason in lines])


def derived_numbers(
    config: TrainConfig,
    llama: LlamaConfig,
    rows: PackedRows,
    parameters: list[int],
    data_parallel_size: int,
    num_microbatches: int,
) -> list[tuple[str, str]]:
    """Return what the configuration implies, as (name, value) lines."""
    training, parallel, lora = config.training, config.parallel, config.lora
    per_step = training.global_batch_size * config.data.seq_length
    distinct = " or ".join(f"{count:,}" for count in sorted(set(parameters)))
    warmup = round(training.train_iters * config.optimizer.lr_warmup_fraction)
    decay = round(training.train_iters * config.optimizer.lr_decay_fraction)
    pipeline = parallel.pipeline_model_parallel_size
    pairs = [
        ("device", torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU (gloo)"),
        ("layout", f"TP {parallel.tensor_model_parallel_size} x PP {pipeline} x DP {data_parallel_size}"),
        ("parameters", f"{llama.num_parameters():,}; {distinct} a rank"),
        (
            "trained",
            f"{num_adapter_parameters(llama, lora):,} in LoRA adapters, r {lora.r}" if lora.r else "all parameters",
        ),
        ("vocabulary", f"{llama.vocab_size:,}, padded to {padded_vocab_size(llama.vocab_size):,}"),
        ("precision", training.precision),
        (
            "steps",
            f"{training.train_iters:,} (warm-up {warmup:,}, cosine until {decay:,}, then {config.optimizer.min_lr:g})",
        ),
        (
            "rows per step",
            f"{training.global_batch_size} = micro-batch {training.micro_batch_size} x accumulation "
            f"{num_microbatches} x DP {data_parallel_size}",
        ),
        ("tokens per step", f"{per_step:,} ({config.data.seq_length:,} a row)"),
        ("tokens in all", f"{per_step * training.train_iters:,}"),
        ("pipeline bubble", f"{(pipeline - 1) / num_microbatches:.1%}"),
        ("MFU", mfu_peak(config)[1]),
    ]
    summary = rows.summary()
    pairs.append(("data", f"eta {summary['eta']}, rows filled to {summary['fill']:.1%}"))
    for name, source in summary["sources"].items():
        pairs.append(
            (
                f"  {name}",
                f"{source['conversations']:,} conversations ({source['conversation_share']:.1%}), "
                f"{source['passes']:.2f} epochs, {source['trained_tokens']:,} trained tokens",
            )
        )
    return pairs
