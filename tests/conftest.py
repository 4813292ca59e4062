"""What all tests share: where real data may be, and helpers on the import path."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from project import ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the project; tests that need it skip without it."""
    folder = Path(os.environ.get("FRCNN_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data beside the project (set FRCNN_SHARED_DATA)")
    return folder
