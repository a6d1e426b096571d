"""No run replaces a CA or signs for a host what the plan doesn't say: it stops, tells why, and touches nothing."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mpqlab.testing import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mpqlab.testing import Lab, SiteRun

    RunSite = Callable[..., SiteRun]

INVENTORY = Path(__file__).parents[1] / "inventory"
NODES = ("client", "vps")
# Names, kinds, modes, owners and times of all files, and the content of each.
LOOK = (
    r"cd /etc/mpquic && find . -printf '%p %y %m %u %g %T@ %l\n' | LC_ALL=C sort;"
    " find . -type f | LC_ALL=C sort | xargs sha256sum"
)
PACKAGES = "/usr/lib/python3/dist-packages"
FORGED = """\
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

ANOTHER_SITE = x509.UniformResourceIdentifier("urn:mpquic:site:site2")
FORGED = {forged}
ORDINARY = x509.CertificateSigningRequestBuilder.add_extension


def add_extension(builder, extension, critical):
    return ORDINARY(builder, FORGED.get(type(extension), extension), critical)


x509.CertificateSigningRequestBuilder.add_extension = add_extension
"""


@pytest.fixture(scope="module")
def authority() -> Path:
    """The CA's folder of the scenario's inventory."""
    variables = yaml.safe_load((INVENTORY / "hosts.yml").read_text())["all"]["vars"]
    return Path(str(variables["mpquic_pki_dir"]).replace("{{ playbook_dir }}", str(PROJECT)))


@pytest.fixture
def copied(authority: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(authority, tmp_path / "pki" / "copied"))


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*")
    }


@pytest.fixture
def stopped(lab: Lab, run_site: RunSite, authority: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs site.yml, which must fail without a change of any host or of any CA's folder; returns what it says."""

    def run(*arguments: str, **more: Path) -> str:
        folders = (authority.parent, tmp_path)
        before = [lab.run(node, LOOK) for node in NODES], [contents(folder) for folder in folders]
        done = run_site(*arguments, **more)
        after = [lab.run(node, LOOK) for node in NODES], [contents(folder) for folder in folders]
        assert done.status == 2, done.output[-5000:]
        assert after == before
        return " ".join(done.output.split())

    return run


def directory(path: Path) -> tuple[str, str]:
    return "-e", f"mpquic_pki_dir={path}"


def test_a_lost_key_stops_the_run(stopped: Callable[..., str], copied: Path) -> None:
    (copied / "ca.key").unlink()
    said = stopped(*directory(copied))
    assert f"{copied} has ca.crt" in said
    assert "without its key, ca.key" in said
    assert "from its backup" in said


def test_a_missing_folder_stops_the_run(stopped: Callable[..., str], tmp_path: Path) -> None:
    said = stopped(*directory(tmp_path / "nothing"))
    assert f"There is no folder {tmp_path}/nothing" in said
    assert "site1-client and vps1 have CA" in said or "vps1 and site1-client have CA" in said


def test_a_renamed_inventory_is_told_where_its_ca_is(
    stopped: Callable[..., str], authority: Path, tmp_path: Path
) -> None:
    renamed = Path(shutil.copytree(INVENTORY, tmp_path / "renamed"))
    document = yaml.safe_load((renamed / "hosts.yml").read_text())
    del document["all"]["vars"]["mpquic_pki_dir"]
    (renamed / "hosts.yml").write_text(yaml.safe_dump(document))
    said = stopped(inventory=renamed)
    assert f"{authority} has CA" in said
    assert "set mpquic_pki_dir to that folder" in said


def test_another_passphrase_stops_the_run(stopped: Callable[..., str]) -> None:
    said = stopped("-e", "mpquic_pki_passphrase=some-other-passphrase")
    assert "The passphrase doesn't open the CA's key" in said
    assert "some-other-passphrase" not in said


@pytest.fixture
def foreign(lab: Lab) -> Iterator[None]:
    """The client has the CA of somebody else meanwhile."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mpquic CA")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=99))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    kept = "/run/ca.crt.kept"
    lab.run("client", f"cp -p /etc/mpquic/pki/ca.crt {kept} && cat > /etc/mpquic/pki/ca.crt <<'END'\n{pem}END")
    yield
    lab.run("client", f"mv {kept} /etc/mpquic/pki/ca.crt")


@pytest.mark.usefixtures("foreign")
def test_a_host_with_another_ca_stops_the_run_and_is_named(stopped: Callable[..., str]) -> None:
    said = stopped()
    assert "but site1-client has CA" in said
    assert "vps1 has the controller's" in said
    assert "remove /etc/mpquic/pki on it" in said


@pytest.fixture
def forge(lab: Lab) -> Iterator[Callable[[str], None]]:
    """Have the client's Python put something else into signing requests: `{type of extension: extension}`."""

    def start(forged: str) -> None:
        text = FORGED.format(forged=forged)
        lab.run("client", f"cat > {PACKAGES}/forged.py <<'END'\n{text}END\necho import forged > {PACKAGES}/forged.pth")

    yield start
    lab.run("client", f"rm -rf {PACKAGES}/forged.py {PACKAGES}/forged.pth {PACKAGES}/__pycache__/forged.*")


@pytest.mark.parametrize(
    ("forged", "says"),
    [
        ("{x509.BasicConstraints: x509.BasicConstraints(ca=True, path_length=None)}", "basicConstraints CA:TRUE"),
        (
            "{x509.SubjectAlternativeName: x509.SubjectAlternativeName([ANOTHER_SITE])}",
            "urn:mpquic:site:site2",
        ),
        (
            "{x509.ExtendedKeyUsage: x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])}",
            "extendedKeyUsage serverAuth",
        ),
    ],
    ids=["CA", "another site", "serverAuth"],
)
def test_a_host_that_asks_for_more_than_its_own_certificate_is_refused(
    stopped: Callable[..., str], forge: Callable[[str], None], forged: str, says: str
) -> None:
    forge(forged)
    said = stopped("--tags", "pki")
    assert "The signing request of 'site1' is refused" in said
    assert says in said


def test_a_key_that_is_a_link_is_not_followed(lab: Lab, stopped: Callable[..., str]) -> None:
    key = "/etc/mpquic/pki/site1.key"
    lab.run("client", f"mv {key} /run/kept.key && ln -s /run/kept.key {key}")
    try:
        said = stopped("--tags", "pki")
    finally:
        lab.run("client", f"rm {key} && cp -p /run/kept.key {key} && rm /run/kept.key")
    assert f"{key} is a symbolic link" in said
