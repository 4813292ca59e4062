"""Say whether something will train, without training: `check.py spec=their_spec.txt`."""

import sys

from frcnn.entry.check import main

if __name__ == "__main__":
    sys.exit(main())
