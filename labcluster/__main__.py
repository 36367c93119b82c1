"""The `lab` command: `python3 -IS PATH/labcluster COMMAND...`."""

import signal
import sys
from pathlib import Path

# Until `main` can answer an interrupt with a line, it ends the process as it would end any other.
signal.signal(signal.SIGINT, signal.SIG_DFL)

# Started by its path and in isolated mode, so that the caller's PYTHONPATH and working folder play no part.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from labcluster.cli import main  # noqa: E402

sys.exit(main())
