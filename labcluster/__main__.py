"""The `lab` command: `python3 -I PATH/labcluster COMMAND...`."""

import sys
from pathlib import Path

# Started by its path and in isolated mode, so that the caller's PYTHONPATH and working folder play no part.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from labcluster.cli import main  # noqa: E402

sys.exit(main())
