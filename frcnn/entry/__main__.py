"""`python -m frcnn.entry COMMAND ...`: how a run starts its further processes, wherever it began."""

import sys

from frcnn.entry.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
