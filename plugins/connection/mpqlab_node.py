# Copyright: the mpquic authors
# GNU General Public License v3.0 or later (see LICENSE)
"""Run tasks in a node of the lab by entering its namespaces."""

from __future__ import annotations

DOCUMENTATION = """
name: mpqlab_node
author: the mpquic authors
short_description: run tasks in a node of the lab
description:
  - Enters a node of the lab that C(mpqlab up) has started and that has a root file system of its own, with C(nsenter).
  - A machine's init process is looked up for each command, so a machine may reboot in the middle of a play.
  - The controller is the machine that runs the lab, and the user is root on both sides.
extends_documentation_fragment:
  - connection_pipelining
options:
  mpqlab_node:
    description:
      - Name of the node in the lab.
      - C(bare) is no machine, but a Debian file system without a running systemd. In the other nodes a task would write
        to the controller's own files.
    required: true
    type: str
    choices: [client, vps, bare]
    vars:
      - name: mpqlab_node
  executable:
    description: Shell that runs the commands.
    default: /bin/sh
    type: str
    ini:
      - section: defaults
        key: executable
    env:
      - name: ANSIBLE_EXECUTABLE
    vars:
      - name: ansible_executable
"""

import shlex
import shutil
import subprocess
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

try:
    from mpqlab import access
    from mpqlab.errors import LabError
    from mpqlab.lab import Lab
    from mpqlab.progress import Progress
except ImportError as error:
    IMPORT_ERROR = error
else:
    IMPORT_ERROR = None

display = Display()


class Connection(ConnectionBase):
    """A connection to one node; nothing is kept open between commands."""

    transport = "mpqlab_node"
    has_pipelining = True
    has_tty = False

    def _connect(self):
        if not self._connected:
            self._enter([])
            self._connected = True
        return self

    def _enter(self, argv):
        """Return the command that runs `argv` in the node as it runs now."""
        if IMPORT_ERROR is not None:
            raise AnsibleError(
                "The connection plugin mpqlab_node needs the package mpqlab in Ansible's own Python: "
                "run Ansible from the environment that `make lab` makes."
            ) from IMPORT_ERROR
        try:
            words = access.command(Lab(Progress(quiet=True)), self.get_option("mpqlab_node"), argv)
        except LabError as error:
            raise AnsibleConnectionFailure(f"{to_text(error)}") from error
        return [to_bytes(word) for word in words]

    def _run(self, argv, stdin, stdout):
        # The command line is ours and has no shell: `argv` goes to execve as it is.
        return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)

    def exec_command(self, cmd, in_data=None, sudoable=True):
        """Run a shell command; return its status, output and errors."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        argv = self._enter([self.get_option("executable"), "-c", cmd])
        display.vvv(f"EXEC {to_text(cmd)}", host=self.get_option("mpqlab_node"))
        source = subprocess.DEVNULL if in_data is None else subprocess.PIPE
        with self._run(argv, source, subprocess.PIPE) as process:
            stdout, stderr = process.communicate(None if in_data is None else to_bytes(in_data))
        return process.returncode, stdout, stderr

    def put_file(self, in_path, out_path):
        """Copy a file of the controller into the machine."""
        super().put_file(in_path, out_path)
        if not Path(in_path).is_file():
            raise AnsibleFileNotFound(f"There is no file {to_text(in_path)} on the controller.")
        script = f"cat > {shlex.quote(to_text(out_path))}"
        with (
            Path(in_path).open("rb") as source,
            self._run(self._enter(["/bin/sh", "-c", script]), source, subprocess.DEVNULL) as process,
        ):
            errors = process.communicate()[1]
        if process.returncode != 0:
            raise AnsibleError(f"{to_text(out_path)} can't be written in the machine: {to_text(errors).strip()}")

    def fetch_file(self, in_path, out_path):
        """Copy a file of the machine to the controller."""
        super().fetch_file(in_path, out_path)
        script = f"exec cat < {shlex.quote(to_text(in_path))}"
        with (
            Path(out_path).open("wb") as target,
            self._run(self._enter(["/bin/sh", "-c", script]), subprocess.DEVNULL, subprocess.PIPE) as process,
        ):
            shutil.copyfileobj(process.stdout, target)
            errors = process.stderr.read()
        if process.returncode != 0:
            raise AnsibleError(f"{to_text(in_path)} can't be read in the machine: {to_text(errors).strip()}")

    def reset(self):
        """Forget the connection: the next command looks the machine up anyway."""
        self.close()

    def close(self):
        """End the connection; there is nothing to close."""
        self._connected = False
