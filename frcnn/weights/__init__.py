"""Weights in files: our checkpoints, and what others wrote."""
