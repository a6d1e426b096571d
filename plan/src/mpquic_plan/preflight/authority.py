"""Whether a run may use the CA of the controller, make one, or must stop before it replaces anybody's certificate.

A CA is told by its public key: a certificate that was made anew for the same key is the same CA. Fingerprints, SHA-256
of the certificate as OpenSSL prints them, are for people.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MIN_PASSPHRASE: Final = 12
"""Characters that the passphrase of a new CA must have."""
WARN_DAYS: Final = 30
"""Days before its end from which a certificate is warned of."""
VARIABLE: Final = "mpquic_pki_new_ca"


@dataclass(frozen=True, slots=True)
class Ca:
    """The certificate of a CA: SHA-256 of its public key and of itself, in hexadecimal digits."""

    key: str
    fingerprint: str

    def __str__(self) -> str:
        return f"CA {short(self.fingerprint)}"


class KeyState(Enum):
    """What there is of `ca.key`."""

    MISSING = "missing"
    NO_PASSPHRASE = "encrypted, and no passphrase was given"
    LOCKED = "the passphrase doesn't open it"
    UNUSABLE = "not an encrypted key"
    OPEN = "opened with the passphrase"


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate counts."""

    not_before: dt.datetime
    not_after: dt.datetime


@dataclass(frozen=True, slots=True)
class Folder:
    """Another folder beside the controller's that has a `ca.crt`."""

    path: str
    ca: Ca
    has_key: bool


@dataclass(frozen=True, slots=True)
class Controller:
    """What the controller has.

    `certificate_problem` says why a `ca.crt` that is there can't be read. `opened` is the public key of a `ca.key` that
    the passphrase opens. `passphrase_source` says where the passphrase comes from, None if there is none, and
    `passphrase_problem` why there is none although one was meant.
    """

    directory: str
    exists: bool = False
    certificate: Ca | None = None
    certificate_problem: str | None = None
    validity: Validity | None = None
    key: KeyState = KeyState.MISSING
    opened: str | None = None
    passphrase_source: str | None = None
    passphrase_problem: str | None = None
    passphrase_length: int = 0
    others: tuple[Folder, ...] = ()
    links: tuple[str, ...] = ()
    """Files of the folder that are symbolic links."""


@dataclass(frozen=True, slots=True)
class Host:
    """What a host of the inventory has; nothing is known of one that wasn't reached."""

    name: str
    reached: bool
    ca: Ca | None = None
    ca_unreadable: bool = False
    """Whether it has a `ca.crt` that can't be read."""


class Action(Enum):
    """What the run does."""

    USE = "use"
    RESTORE = "restore"
    """Write the lost `ca.crt` from a host that has it, for the key that is there."""
    MAKE = "make"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Decision:
    """`message` is for a refusal, `source` is the host whose `ca.crt` is restored."""

    action: Action
    message: str = ""
    source: str | None = None
    keep_key: bool = False
    """A new certificate is made for the key that is there: no host has one of it yet."""


def decide(
    controller: Controller, hosts: Sequence[Host], now: dt.datetime, *, new: bool, dry: bool = False
) -> Decision:
    """Decide about the CA of a fleet.

    Args:
        controller: what is on the controller.
        hosts: every host of the inventory, not only those of the run.
        now: the controller's time (aware).
        new: whether another CA was asked for by the variable. A CA that serves is used all the same: so the variable
            may stay in the inventory, and does nothing more once it has had its effect.
        dry: whether nothing is going to be signed, so that a passphrase may be missing.
    """
    problem = _unusable_folder(controller)
    if problem is not None:
        return Decision(Action.REFUSE, problem)
    own = _own(controller, dry=dry)
    if own is not None and not (new and controller.validity is not None and now >= controller.validity.not_after):
        return _with_own(controller, own, hosts, now, new=new)
    source = _source(controller, hosts, new=new)
    if source is not None:
        return Decision(Action.RESTORE, source=source)
    if not new:
        reason = _reason_not_to_make(controller, hosts)
        if reason is not None:
            return Decision(Action.REFUSE, reason)
    problem = _passphrase(controller, dry=dry)
    if problem is not None:
        return Decision(Action.REFUSE, problem)
    return Decision(
        Action.MAKE, keep_key=controller.key is KeyState.OPEN and controller.certificate is None and not new
    )


def expiring(name: str, not_after: dt.datetime, now: dt.datetime, remedy: str) -> str | None:
    """Return a warning of a certificate that ends within `WARN_DAYS`, or None."""
    days = (not_after - now).days
    if days >= WARN_DAYS:
        return None
    ends = f"ends on {not_after:%Y-%m-%d}, in {days} days" if days >= 0 else f"has ended on {not_after:%Y-%m-%d}"
    return f"The certificate of {name} {ends}: {remedy}."


def short(fingerprint: str) -> str:
    """Return the first 8 bytes of a fingerprint as OpenSSL prints them."""
    return ":".join(fingerprint[index : index + 2].upper() for index in range(0, 16, 2))


def _own(controller: Controller, *, dry: bool) -> Ca | None:
    """Return the CA that the controller can sign with."""
    if controller.certificate is None:
        return None
    if controller.key is KeyState.OPEN and controller.opened == controller.certificate.key:
        return controller.certificate
    # In a dry run without a passphrase nothing is signed; it shows what else would be done.
    return controller.certificate if dry and controller.key is KeyState.NO_PASSPHRASE else None


def _with_own(controller: Controller, own: Ca, hosts: Sequence[Host], now: dt.datetime, *, new: bool) -> Decision:
    validity = controller.validity
    if validity is not None and not validity.not_before <= now < validity.not_after:
        ended = now >= validity.not_after
        return Decision(
            Action.REFUSE,
            f"{_TITLE} {controller.directory}/ca.crt {'has ended' if ended else 'is not valid yet'}: it counts from "
            f"{_time(validity.not_before)} to {_time(validity.not_after)}. The controller's clock says {_time(now)}; "
            "set it if that is wrong."
            + (f" Otherwise replace the CA: set {VARIABLE}: true for one run with every host." if ended else ""),
        )
    others = [host for host in hosts if host.reached and (host.ca_unreadable or (host.ca and host.ca.key != own.key))]
    if not others or new:
        return Decision(Action.USE)
    same = [host for host in hosts if host.ca is not None and host.ca.key == own.key]
    paragraphs = [
        f"{_TITLE} The controller's is {own} in {controller.directory}, but " + _listed(others) + ".",
        f"{_names(same)} {'has' if len(same) == 1 else 'have'} the controller's." if same else None,
    ]
    found = _found(controller.others, others)
    if found:
        paragraphs.append(found)
        paragraphs.append(
            "If this inventory belongs to that CA, set mpquic_pki_dir to that folder, or rename the folder."
        )
    paragraphs.append(
        "If a host was moved here on purpose, remove /etc/mpquic/pki on it and run again: it gets a key and "
        f"certificate of this CA. To replace what all of these hosts have, set {VARIABLE}: true for one run. "
        "Otherwise use the checkout and inventory that they were set up from."
    )
    return Decision(Action.REFUSE, _joined(paragraphs))


def _source(controller: Controller, hosts: Iterable[Host], *, new: bool) -> str | None:
    """Return a host that has the `ca.crt` of the key that is there: a lost one is restored, the key is what matters."""
    if controller.certificate is not None or controller.certificate_problem or controller.key is not KeyState.OPEN:
        return None
    reached = [host for host in hosts if host.reached]
    foreign = any(host.ca_unreadable or (host.ca is not None and host.ca.key != controller.opened) for host in reached)
    if foreign and not new:
        return None
    return next((host.name for host in reached if host.ca is not None and host.ca.key == controller.opened), None)


def _reason_not_to_make(controller: Controller, hosts: Sequence[Host]) -> str | None:
    """Return the message if a new CA would or might cut off a host, or replace what an operator still needs."""
    carriers = [host for host in hosts if host.reached and (host.ca is not None or host.ca_unreadable)]
    absent = [host for host in hosts if not host.reached]
    damaged = _damage(controller)
    if not carriers and not absent and damaged is None:
        return None
    if damaged is not None:
        paragraphs = [f"{_TITLE} {damaged}", _remedy(controller)]
    elif not controller.exists:
        paragraphs = [f"{_TITLE} There is no folder {controller.directory}."]
    elif controller.key is KeyState.OPEN:
        paragraphs = [f"{_TITLE} {controller.directory} has ca.key without its certificate, ca.crt."]
    else:
        paragraphs = [f"{_TITLE} {controller.directory} has neither ca.crt nor ca.key."]
    if carriers:
        paragraphs.append(f"But {_listed(carriers)}.")
    if absent:
        one = len(absent) == 1
        paragraphs.append(
            f"{_names(absent)} {'was' if one else 'were'} not reached in this run, so it isn't known which CA "
            f"{'it has' if one else 'they have'}; a new one would cut off a host that has another."
        )
    found = _found(controller.others, carriers)
    paragraphs.append(found)
    if found:
        paragraphs.append(
            "If the inventory was renamed or copied, set mpquic_pki_dir to that folder, or rename the folder."
        )
    elif controller.others:
        paragraphs.append(
            "Looked beside it, too: "
            + "; ".join(f"{folder.path} has {folder.ca}" for folder in controller.others)
            + "."
        )
    if carriers or damaged is not None:
        paragraphs.append(
            f"Restore {controller.directory} from its backup, or copy it from the controller or checkout that the "
            "hosts were set up from; no repository has it."
        )
        paragraphs.append(
            f"Only if it is lost for good, set {VARIABLE}: true for one run with every host of the inventory. All get "
            "certificates of a new CA; those that are not in that run are cut off until they are in one."
        )
    else:
        paragraphs.append(
            "The first run makes the CA, and has to reach every host of the inventory: run it without --limit, and "
            "take hosts that can't be reached yet out of the inventory. Or set "
            f"{VARIABLE}: true if none of them was ever set up."
        )
    return _joined(paragraphs)


def _damage(controller: Controller) -> str | None:
    """Say what is wrong with a folder that has some part of a CA; None for one that has nothing or a key alone."""
    folder = controller.directory
    if controller.certificate_problem is not None:
        return f"{folder}/ca.crt {controller.certificate_problem}."
    if controller.key in (KeyState.LOCKED, KeyState.NO_PASSPHRASE):
        if controller.passphrase_source is None:
            return f"The CA's key {folder}/ca.key is encrypted, and there is no passphrase for it."
        return (
            f"The passphrase doesn't open the CA's key {folder}/ca.key; it is that of {controller.passphrase_source}."
        )
    if controller.key is KeyState.UNUSABLE:
        return f"{folder}/ca.key is no encrypted private key on P-256."
    if controller.certificate is None:
        return None
    if controller.key is KeyState.MISSING:
        return f"{folder} has ca.crt ({controller.certificate}) without its key, ca.key."
    return f"{folder}/ca.key isn't the key of {folder}/ca.crt ({controller.certificate})."


def _remedy(controller: Controller) -> str | None:
    if controller.key is KeyState.LOCKED:
        return (
            "Give the passphrase that the key was made with. The first of these that is set counts: the variable "
            "mpquic_pki_passphrase, the file mpquic_pki_passphrase_file, the environment variable "
            f"MPQUIC_PKI_PASSPHRASE, the file {controller.directory}/passphrase."
        )
    if controller.key is KeyState.NO_PASSPHRASE:
        return controller.passphrase_problem or _HOW_TO_GIVE
    if controller.key is KeyState.UNUSABLE:
        return (
            "A key that isn't encrypted gets a passphrase by: openssl pkey -aes256 -in ca.key -out encrypted, and that "
            "file in its place."
        )
    return None


def _unusable_folder(controller: Controller) -> str | None:
    if not controller.links:
        return None
    count = "is a symbolic link" if len(controller.links) == 1 else "are symbolic links"
    return (
        f"{_TITLE} {', '.join(controller.links)} {count}, and nothing of the CA is written through a link. Put the "
        "files themselves there, or set mpquic_pki_dir to the folder that they are in."
    )


def _passphrase(controller: Controller, *, dry: bool) -> str | None:
    """Return the message if the passphrase won't do for a new CA."""
    if controller.passphrase_source is None:
        return (
            None
            if dry
            else f"{_TITLE} A new one needs a passphrase for its key. {controller.passphrase_problem or _HOW_TO_GIVE}"
        )
    if controller.passphrase_length < MIN_PASSPHRASE:
        return (
            f"{_TITLE} The passphrase for the key of the new one, that of {controller.passphrase_source}, has "
            f"{controller.passphrase_length} characters and needs at least {MIN_PASSPHRASE}."
        )
    return None


def _found(folders: Iterable[Folder], hosts: Iterable[Host]) -> str | None:
    """Name folders of the controller that hold a CA which hosts have."""
    wanted = {host.ca.key for host in hosts if host.ca is not None}
    sentences = [
        f"{folder.path} has {folder.ca}" + ("" if folder.has_key else ", though not its ca.key")
        for folder in folders
        if folder.ca.key in wanted
    ]
    return "; ".join(sentences) + ", which these hosts have." if sentences else None


def _listed(hosts: Iterable[Host]) -> str:
    """Say which host has which CA: `south has CA 12:34...; vps1 and west have CA ...`."""
    groups: dict[str, list[Host]] = {}
    for host in hosts:
        what = f"{host.ca}" if host.ca is not None else "an /etc/mpquic/pki/ca.crt that can't be read"
        groups.setdefault(what, []).append(host)
    return "; ".join(f"{_names(group)} {'has' if len(group) == 1 else 'have'} {what}" for what, group in groups.items())


def _names(hosts: Sequence[Host]) -> str:
    names = [host.name for host in hosts]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _time(time: dt.datetime) -> str:
    return f"{time.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"


def _joined(paragraphs: Iterable[str | None]) -> str:
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


_TITLE: Final = "The certificate authority can't be used, and nothing was changed."
_HOW_TO_GIVE: Final = (
    "Set mpquic_pki_passphrase (vault), mpquic_pki_passphrase_file or the environment variable MPQUIC_PKI_PASSPHRASE."
)
