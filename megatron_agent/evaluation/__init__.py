"""Evaluation: tasks played by a model, results that survive a stop, scores."""
