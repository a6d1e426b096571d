"""Runs `mpquic-guard` as `python -m mpquic.guard`."""

import sys

from mpquic.guard import main

sys.exit(main())
