#!/usr/bin/python3 -IS
"""Hand a module of Ansible to the process that has its imports; where that isn't possible, be Python.

It imports nothing that isn't part of the interpreter: that is what makes it start in a third of a second.
"""

import _socket
import marshal
import posix
import sys

PYTHON = "/usr/bin/python3"
SERVER = "/run/mpqlab-modules"
ASKS_ITS_PARENTS = b"host_survey"
"""A module that looks for sshd among the processes that it comes from."""


def keep_script() -> bool:
    """Put standard input into memory, to be read again; return whether it is a module that must be a child of ours."""
    script = posix.memfd_create("module")
    parts = []
    while part := posix.read(0, 1 << 20):
        parts.append(part)
    whole = b"".join(parts)
    left = memoryview(whole)
    while left:
        left = left[posix.write(script, left) :]
    posix.lseek(script, 0, 0)
    posix.dup2(script, 0)
    posix.close(script)
    return ASKS_ITS_PARENTS in whole


def main() -> None:
    """Run what the arguments name, or standard input."""
    arguments = sys.argv[1:]
    alone = arguments[0].startswith("-") if arguments else keep_script()
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        if alone:
            raise ConnectionRefusedError
        server.connect(SERVER)
    except OSError:
        posix.execv(PYTHON, [PYTHON, *arguments])
    streams = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    message = marshal.dumps((arguments, posix.environ, posix.getcwd(), posix.umask(0)))
    server.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
    answer = server.recv(64)
    # Without one, the process at the other end was killed.
    posix._exit(marshal.loads(answer) & 0xFF if answer else 0xFF)


main()
