"""What a training run needs before it runs: memory of every rank, time, and a layout that fits."""
