"""Draw what each augmentation does to training images: `preview_augmentation.py spec=their_spec.txt`."""

import sys

from frcnn.entry.main import main

if __name__ == "__main__":
    sys.exit(main("preview_augmentation"))
