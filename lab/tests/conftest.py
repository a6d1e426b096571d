"""What holds for all tests of the lab."""

import os

# The tests name devices of the reference site, whichever lab runs beside them.
os.environ["MPQLAB_NICS"] = "reference"
