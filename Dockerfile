# Two images from one file (docs/image.md):
#   docker build -t agentlm-megatron .                    for GPUs, on NVIDIA's PyTorch image (last stage: the default)
#   docker build -t agentlm-megatron:cpu --target cpu .   quickstart and tests, on a slim Python
# `launch/image.sh build` does either with docker, podman or buildah, and fills in the labels.
#
# A base is pinned by tag and digest; the digest decides. Both digests name the image of all architectures. To move on:
#   docker buildx imagetools inspect nvcr.io/nvidia/pytorch:TAG     (or: skopeo inspect --raw docker://... | sha256sum)
#   docker build --build-arg BASE_TAG=TAG --build-arg BASE_DIGEST=sha256:... .
# An empty BASE_DIGEST trusts the tag alone.
#
# 25.11 is what megatron-core 0.16 was tested on, and the first with the Transformer Engine it names (2.9 to 2.11):
# 25.09 and 25.10 hold older ones, 26.02 a newer one.
ARG BASE_TAG=25.11-py3
ARG BASE_DIGEST=sha256:417cbf33f87b5378849df37983552cd1f8bc8b62fe1ceabe004de816a55dff21
ARG PYTHON_TAG=3.11.16-slim-bookworm
ARG PYTHON_DIGEST=sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84

# ---------------------------------------------------------------------------------------------------------------- cpu
FROM docker.io/library/python:${PYTHON_TAG}${PYTHON_DIGEST:+@${PYTHON_DIGEST}} AS cpu

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git make \
    && rm -rf /var/lib/apt/lists/*

# Any user may write to the top folder and the home: a runtime may map another uid than the one named here.
ARG UID=1000
RUN useradd --no-log-init --non-unique --uid "$UID" --create-home --shell /bin/bash agentlm \
    && chmod 1777 /home/agentlm \
    && install -d -m 1777 -o agentlm -g agentlm /opt/agentlm-megatron
ENV HOME=/home/agentlm \
    LOGNAME=agentlm \
    PYTHONUNBUFFERED=1
USER $UID
WORKDIR /opt/agentlm-megatron

# Dependencies first: they change seldom. README.md is only the package's description, so an empty one serves here.
# For torch's CPU build instead of several GB for CUDA, pass PyTorch's index of CPU wheels as PIP_EXTRA_INDEX_URL.
# Never an address with a password: build arguments stay readable in the image's history.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
COPY --chown=agentlm:agentlm setup.py pyproject.toml Makefile ./
COPY --chown=agentlm:agentlm .ci .ci
RUN touch README.md \
    && PIP_NO_CACHE_DIR=1 make .venv/installed

COPY --chown=agentlm:agentlm . .
RUN .venv/bin/pip install -q --no-cache-dir --no-deps -e . \
    && touch .venv/installed
ENV PATH=/opt/agentlm-megatron/.venv/bin:$PATH

ARG PYTHON_TAG
ARG PYTHON_DIGEST
ARG SOURCE=""
ARG REVISION=""
ARG VERSION=0.1.0
ARG LICENSES=NOASSERTION
LABEL org.opencontainers.image.title="AgentLM-Megatron (CPU)" \
      org.opencontainers.image.description="Quickstart and tests of AgentLM-Megatron on a CPU" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.licenses="$LICENSES" \
      org.opencontainers.image.base.name="docker.io/library/python:$PYTHON_TAG" \
      org.opencontainers.image.base.digest="$PYTHON_DIGEST"

HEALTHCHECK --interval=10m --timeout=2m --start-period=1m CMD ["python", "-m", "megatron_agent.doctor", "--quiet"]
CMD ["make", "quickstart"]
RUN python -m megatron_agent.doctor --expect cpu

# ---------------------------------------------------------------------------------------------------------------- gpu
FROM nvcr.io/nvidia/pytorch:${BASE_TAG}${BASE_DIGEST:+@${BASE_DIGEST}} AS gpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# What NVIDIA compiled for each other stays as it is: pip gets these versions as constraints. Not the image's whole list
# (/etc/pip/constraint.txt, the image's PIP_CONSTRAINT), which freezes every package of it: megatron-core may need a
# newer one of those in plain Python, and pip keeps every other that will do.
WORKDIR /opt/agentlm-megatron
RUN names='apex|cuda[-_].*|flash[-_]attn.*|numpy|nvidia[-_].*|(pytorch[-_])?triton|torch.*|transformer[-_]engine.*' \
    && python -m pip list --format=freeze | tee base.txt | grep -iE "^($names)==" | tee compiled.txt

ARG UID=1000
# Ubuntu's own user has uid 1000 as well, hence --non-unique. LOGNAME: torch asks for a user's name, and fails for a uid
# without one. A runtime may map another uid: home and working folder may be written by anybody.
RUN useradd --no-log-init --non-unique --uid "$UID" --create-home --shell /bin/bash agentlm \
    && chmod 1777 /home/agentlm \
    && install -d -m 1777 -o agentlm -g agentlm /work

# Dependencies first: they change seldom. README.md is only the package's description, so an empty one serves here.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
COPY setup.py pyproject.toml source/
# hadolint ignore=DL3013
RUN touch source/README.md \
    && PIP_CONSTRAINT=/opt/agentlm-megatron/compiled.txt PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore \
       python -m pip install --no-cache-dir './source[hf,hub,sharegpt,tasks,wandb]'

# A plain install, not an editable one: a checkout mounted anywhere and named in PYTHONPATH comes before it, and
# nothing in the image depends on the path it was built in.
COPY README.md source/
COPY checkpoints_convert source/checkpoints_convert
COPY data_prep source/data_prep
COPY launch source/launch
COPY megatron_agent source/megatron_agent
RUN PIP_CONSTRAINT="" PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore \
       python -m pip install --no-cache-dir --no-deps ./source \
    && rm -rf source/build source/*.egg-info \
    && python -m pip list --format=freeze > packages.txt \
    && echo "packages of the base that changed (<, >), and added ones (>):" \
    && { diff base.txt packages.txt | grep '^[<>]' || true; } \
    && lost="$(grep -vxF -f packages.txt compiled.txt || true)" \
    && if [ -n "$lost" ]; then \
         echo "error: these versions of the base image expected, and gone: $lost" >&2; exit 1; \
       fi

# CUDA_DEVICE_MAX_CONNECTIONS=1 starts kernels in the order they were queued: tensor parallelism's overlap queues each
# communication before the computation that is to hide it. PIP_CONSTRAINT: a later pip may only add. PYTHONNOUSERSITE:
# Apptainer mounts the user's home, whose ~/.local would come before the image's packages.
ENV CUDA_DEVICE_MAX_CONNECTIONS=1 \
    HOME=/home/agentlm \
    LOGNAME=agentlm \
    PIP_CONSTRAINT=/opt/agentlm-megatron/packages.txt \
    PYTHONNOUSERSITE=1 \
    PYTHONUNBUFFERED=1
USER $UID
WORKDIR /work

ARG BASE_TAG
ARG BASE_DIGEST
ARG SOURCE=""
ARG REVISION=""
ARG VERSION=0.1.0
ARG LICENSES=NOASSERTION
LABEL org.opencontainers.image.title="AgentLM-Megatron" \
      org.opencontainers.image.description="Agent tuning of Llama models on Megatron-core, for NVIDIA GPUs" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.licenses="$LICENSES" \
      org.opencontainers.image.base.name="nvcr.io/nvidia/pytorch:$BASE_TAG" \
      org.opencontainers.image.base.digest="$BASE_DIGEST"

# No ENTRYPOINT: NVIDIA's stays. It prints the versions and warns of a driver that is too old.
# The check hides the GPUs: a look at them, and at NCCL, would take their memory from a running training. Its time is
# above doctor's own limits, within which it says itself what hangs: 2 x 180 s of imports, 60 s of nvidia-smi.
HEALTHCHECK --interval=10m --timeout=8m --start-period=1m \
    CMD ["env", "CUDA_VISIBLE_DEVICES=", "python", "-m", "megatron_agent.doctor", "--expect", "image", "--quiet"]
# An image that training cannot use is not made. It needs no GPU here; DOCTOR_EXPECT=cpu is for tests/image/build.sh.
ARG DOCTOR_EXPECT=image
RUN python -m megatron_agent.doctor --expect "$DOCTOR_EXPECT"
