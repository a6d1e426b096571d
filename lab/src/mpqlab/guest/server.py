"""Run modules of Ansible in children of this process, which has imported what they need.

What is imported here stays as it is: a child that changes it ends with its module. Only root may connect.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import marshal
import os
import runpy
import signal
import socket
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVER = Path("/run/mpqlab-modules")
LIBRARY = str(Path(__file__).parent / "ansible")
ARCHIVED = ("ansible.modules", "ansible.legacy")
"""Where Ansible's modules are, its own and those of a project."""
STREAMS = 3
LARGEST = 1 << 20
IMPORTED = (
    "ansible.module_utils.basic",
    "ansible.module_utils._internal._ansiballz._loader",
    "ansible.module_utils.common.json",
    "ansible.module_utils.common.yaml",
    "ansible.module_utils.facts.system.service_mgr",
    "ansible.module_utils.service",
    "base64",
    "dataclasses",
    "datetime",
    "difflib",
    "fcntl",
    "filecmp",
    "glob",
    "grp",
    "ipaddress",
    "pwd",
    "tempfile",
    "zipfile",
)


class Archive(importlib.abc.MetaPathFinder):
    """Finds a module of Ansible in the archive that it comes in: the package `ansible` isn't that archive's here."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the packages of modules and what is in them."""
        del path
        if ".".join(fullname.split(".")[:2]) not in ARCHIVED:
            return None
        folder = fullname.rpartition(".")[0].replace(".", "/")
        places = [f"{entry}/{folder}" for entry in sys.path if entry.endswith(".zip")]
        return importlib.machinery.PathFinder.find_spec(fullname, places, target)


def run(connection: socket.socket) -> None:
    """Take the streams and surroundings of an interpreter, and be the module; its exit status goes back."""
    message, streams, _, _ = socket.recv_fds(connection, LARGEST, STREAMS)
    arguments, environment, folder, umask = marshal.loads(message)
    if child := os.fork():
        for stream in streams:
            os.close(stream)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(BrokenPipeError):
            connection.send(marshal.dumps(status))
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environb.update(environment)
    os.chdir(folder)
    os.umask(umask)
    sys.argv = arguments or [""]
    if arguments:
        runpy.run_path(arguments[0], run_name="__main__")
        return
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(sys.stdin.buffer.read(), "<stdin>", "exec"), main.__dict__)


def listen() -> socket.socket:
    """Open the socket, for root alone."""
    SERVER.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    listener.bind(str(SERVER))
    os.umask(before)
    listener.listen()
    return listener


def serve() -> None:
    """Import, then fork for each module."""
    sys.path.insert(0, LIBRARY)
    for name in IMPORTED:
        importlib.import_module(name)
    sys.path.remove(LIBRARY)
    sys.meta_path.insert(0, Archive())
    listener = listen()
    # The kernel reaps the children that wait for modules.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            run(connection)
            return
        connection.close()


serve()
