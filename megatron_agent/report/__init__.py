"""Results of training runs and evaluations side by side: `python -m megatron_agent.report`.

`collect.py` reads them, `tables.py` writes them down, `figure.py` draws them.
"""
