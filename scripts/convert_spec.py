"""Convert a TAO spec between prototxt and YAML: `convert_spec.py IN OUT`."""

import sys

from frcnn.bridge.convert import main

if __name__ == "__main__":
    sys.exit(main())
