"""Compare our networks with the original's outputs, stage by stage: `check_reference.py FOLDER`."""

import sys

from frcnn.reference import main

if __name__ == "__main__":
    sys.exit(main())
