"""Compare two models: `parity.py RUN/checkpoints/best.ckpt EXPORT/model.onnx`."""

import sys

from frcnn.entry.main import main

if __name__ == "__main__":
    sys.exit(main("parity"))
