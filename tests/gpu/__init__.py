"""What to run on GPUs: `python -m tests.gpu CHECK`, or all of it with `pytest tests/gpu`.

The checks are plain functions of a device, so that every line also runs on a CPU (tests/test_gpu_checks.py). Nothing
here imports Transformer Engine; megatron-core does, where it is installed.
"""
