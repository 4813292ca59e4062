"""Cut weak channels out of a network: `prune.py model_path=RUN/checkpoints/best.ckpt prune.threshold=0.5`."""

import sys

from frcnn.entry.main import main

if __name__ == "__main__":
    sys.exit(main("prune"))
