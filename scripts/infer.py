"""Detect objects in images: `infer.py model_path=RUN/checkpoints/best.ckpt images=FOLDER`."""

import sys

from frcnn.entry.main import main

if __name__ == "__main__":
    sys.exit(main("infer"))
