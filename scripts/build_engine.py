"""Compile an exported graph for TensorRT: `build_engine.py model.onnx -e model.engine -m 8`."""

import sys

from frcnn.build_engine import main

if __name__ == "__main__":
    sys.exit(main())
