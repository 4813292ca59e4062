"""Optimizers and learning-rate schedules in the original's forms."""
