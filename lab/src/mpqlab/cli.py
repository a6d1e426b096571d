"""The command `mpqlab`."""

import sys
from mpqlab.lab import Lab
from mpqlab.progress import Progress
from mpqlab import access
import os


def main():
    lab = Lab(Progress())
    if sys.argv[1] == "up":
        lab.up(None)
    if sys.argv[1] == "down":
        lab.down()
    if sys.argv[1] == "reboot":
        lab.reboot(sys.argv[2])
    if sys.argv[1] == "exec":
        c = access.command(lab, sys.argv[2], sys.argv[4:])
        os.execvp(c[0], c)
