"""Environments agents act in; one module or folder a task."""
