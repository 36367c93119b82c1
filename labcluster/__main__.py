"""The `lab` command: `python3 -IS PATH/labcluster COMMAND...`."""

# Before anything that takes time: until `main` can answer an interrupt with a line, it ends the process as it would end
# any other. `signal` itself is a file to be loaded; this is what it has from the interpreter.
import _signal  # type: ignore[import-not-found]  # no stub has it

_signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

# Started by its path and in isolated mode, so that the caller's PYTHONPATH and working folder play no part.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from labcluster.cli import main  # noqa: E402

sys.exit(main())
