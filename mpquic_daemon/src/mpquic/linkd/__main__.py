"""Runs `mpquic-linkd` as `python -m mpquic.linkd`."""

import sys

from mpquic.linkd import main

sys.exit(main())
