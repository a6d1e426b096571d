"""The modules are files without a package, as Ansible wants them."""

import sys
from pathlib import Path

# Last: the documentation of an action may be named like a package.
sys.path.extend([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
