"""Train a detector: `train.py backbone=resnet18 lr=soft_start` or `train.py spec=their_spec.txt`."""

import sys

from frcnn.entry.main import main

if __name__ == "__main__":
    sys.exit(main("train"))
