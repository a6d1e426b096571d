"""Print what it takes to apply a changed configuration to a running instance: `same`, `hot` or `restart`."""

import sys
from pathlib import Path

from mpquic.config import load
from mpquic.config.reload import compare

changes = compare(load(Path(sys.argv[1])), load(Path(sys.argv[2])))
print("restart" if changes.restart else "hot" if changes.hot else "same")
