"""Llama models on megatron-core."""

import warnings

# megatron-core says on every import and on every rank that these optional GPU packages are absent; which parts are used
# in their place is printed once, by name, when training starts (kernels.resolve_kernels).
for _message in (
    "Transformer Engine and Apex are not installed",
    "Apex is not installed",
    "full scope is deprecated",
):
    warnings.filterwarnings("ignore", message=_message)
# Calls inside megatron-core 0.16.1 that newer torch versions want spelled differently.
for _message in (
    "`torch.distributed",
    "`load_state_dict` is deprecated",
    "Please use DTensor instead",
    "The .grad attribute of a Tensor that is not a leaf",
):
    warnings.filterwarnings("ignore", message=_message)
