"""Evaluate a checkpoint on its validation data: `evaluate.py model_path=RUN/checkpoints/best.ckpt`."""

import sys

from frcnn.entry.main import main

if __name__ == "__main__":
    sys.exit(main("evaluate"))
