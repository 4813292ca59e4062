"""Make a checkpoint of a TAO detector: `import_weights.py model.hdf5 model.ckpt spec=their_spec.txt`."""

import sys

from frcnn.import_weights import main

if __name__ == "__main__":
    sys.exit(main())
