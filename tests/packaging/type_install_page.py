"""What docs/install.md has somebody type as root on one host, as a script for sh: `type_install_page.py PAGE`.

Of its blocks those count that say `# COMMAND`, and a file's content, which begins with `# /ITS/PATH`. What another host
is told (`node1# ...`) does not.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = re.compile(r"^```(console|toml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def script(page: str) -> Iterator[str]:
    """Each line that is typed, said before it is done; the first that fails ends it."""
    yield "set -e"
    for kind, block in _BLOCK.findall(page):
        if kind == "console":
            for line in block.splitlines():
                if line.startswith("# "):
                    yield f"echo {shlex.quote(line)}"
                    yield line.removeprefix("# ")
        elif block.startswith("# /"):
            path = block.partition("\n")[0].removeprefix("# ")
            yield f"echo {shlex.quote(f'# editor {path}')}"
            yield f"cat >{shlex.quote(path)} <<'END OF FILE'\n{block}END OF FILE"


if __name__ == "__main__":
    sys.stdout.write("\n".join(script(Path(sys.argv[1]).read_text(encoding="utf-8"))) + "\n")
