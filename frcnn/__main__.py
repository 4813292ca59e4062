"""`python -m frcnn` is the console command `frcnn`."""

import sys

from frcnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
