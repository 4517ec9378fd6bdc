# The image local-os/ubuntu of AgentBench's operating-system task: a bare system (check scripts in Python cannot run).
FROM ubuntu:22.04
CMD ["bash"]
