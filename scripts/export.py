"""Export a model: `export.py model_path=RUN/checkpoints/best.ckpt`."""

import sys

from frcnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
