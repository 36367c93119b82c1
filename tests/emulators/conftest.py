"""The helpers of the unit tests, which know small sequences and their closed forms."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))
