"""Export a model: `export.py model_path=RUN/checkpoints/best.ckpt`."""

import sys

from frcnn.entry.main import main

if __name__ == "__main__":
    sys.exit(main("export"))
