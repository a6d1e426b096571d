"""Runs `mpquicctl` as `python -m mpquic.ctl`."""

import sys

from mpquic.ctl import main

sys.exit(main())
