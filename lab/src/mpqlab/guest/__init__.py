"""Programs for the inside of an emulated machine, where every start of Python takes a second.

A module of Ansible imports some two hundred others, which takes five seconds there. So one process has imported them
once (`server.py`) and runs each module in a child of its own; `interpreter.py` is what an inventory names as
`ansible_python_interpreter`. The module, its arguments and its way by ssh and sudo are the same as elsewhere.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from mpqlab.errors import LabError

INTERPRETER = Path("/usr/local/lib/mpqlab/python3")
UNIT = "mpqlab-modules.service"

_SOURCES = Path(__file__).parent
_UNIT = f"""[Unit]
Description=Ansible's modules in processes that have their imports

[Service]
ExecStart=/usr/bin/python3 {INTERPRETER.with_name("server.py")}

[Install]
WantedBy=multi-user.target
"""


def install(root: Path) -> None:
    """Put both programs, and the libraries of Ansible's modules, into a file system. The unit isn't enabled yet.

    Raises:
        LabError: there is no Ansible beside this program.
    """
    found = importlib.util.find_spec("ansible")
    if found is None or not found.submodule_search_locations:
        raise LabError("Ansible isn't installed in this environment: `make bootstrap`")
    package = Path(found.submodule_search_locations[0])
    folder = root / INTERPRETER.parent.relative_to("/")
    target = folder / "ansible/ansible"
    shutil.copytree(package / "module_utils", target / "module_utils", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(package / "release.py", target)
    # Ansible's own would import parts of the controller.
    (target / "__init__.py").touch()
    shutil.copy(_SOURCES / "server.py", folder)
    program = folder / INTERPRETER.name
    # Else what is written would go where this link of every machine leads: into the machine's own Python.
    program.unlink()
    shutil.copy(_SOURCES / "interpreter.py", program)
    program.chmod(0o755)
    (root / "etc/systemd/system" / UNIT).write_text(_UNIT)
