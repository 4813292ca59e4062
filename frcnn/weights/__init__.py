"""Weights in files: our checkpoints."""
