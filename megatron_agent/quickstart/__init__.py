"""The whole method in miniature on a CPU: `python -m megatron_agent.quickstart`."""
