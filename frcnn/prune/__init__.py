"""Structured pruning: which channels hang together, which of them stay, and the smaller network."""
