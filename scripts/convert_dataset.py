"""Convert a KITTI or COCO data set to TFRecords: `convert_dataset.py -d SPEC -o OUT`."""

import sys

from frcnn.convert import main

if __name__ == "__main__":
    sys.exit(main())
