# The image local-os/packages of AgentBench's operating-system task.
FROM ubuntu:22.04
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates curl git npm python3 python3-pip tree unzip vim wget zip \
    && rm -rf /var/lib/apt/lists/*
CMD ["bash"]
