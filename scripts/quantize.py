"""Calibrate a network for int8: `quantize.py model_path=RUN/checkpoints/best.ckpt quantize.method=mse`."""

import sys

from frcnn.entry.main import main

if __name__ == "__main__":
    sys.exit(main("quantize"))
