# Training image on NVIDIA's PyTorch image, which brings torch, Transformer Engine, apex and NCCL built for each other.
# Build: docker build -t agentlm-megatron .        Other base: --build-arg BASE_IMAGE=...
ARG BASE_IMAGE=nvcr.io/nvidia/pytorch:25.09-py3
FROM ${BASE_IMAGE}

WORKDIR /opt/agentlm-megatron
COPY setup.py pyproject.toml README.md ./
COPY megatron_agent megatron_agent
COPY data_prep data_prep
COPY checkpoints_convert checkpoints_convert
COPY launch launch

# torch and Transformer Engine must stay the image's own: pip may only add what is missing.
RUN python -c 'import torch; print(f"torch=={torch.__version__}")' > /tmp/image-constraints.txt \
    && pip install --no-cache-dir --constraint /tmp/image-constraints.txt ".[hf,hub,english]" \
    && python -c 'import megatron.core, megatron_agent, data_prep, checkpoints_convert'

# CUDA_DEVICE_MAX_CONNECTIONS=1 orders communication before compute, which tensor parallelism's overlap relies on.
ENV CUDA_DEVICE_MAX_CONNECTIONS=1 \
    PYTHONUNBUFFERED=1
