#!/usr/bin/python
"""Documentation of the action plugin of this name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mpquic_authority
short_description: Use the CA on the controller, make it, or stop before any certificate is replaced by accident
description:
  - Looks at the CA's folder on the controller and at what C(mpquic_survey.survey.pki) of each host says. A host without
    C(mpquic_survey) counts as not reached in this run.
  - Uses the CA that is there; makes one when every host was reached and none has a certificate of any, or when I(new)
    asks for it; else fails with one message, and nothing was written.
  - Warns of certificates that end within 30 days, of the CA and of hosts that aren't in this run.
  - On the controller alone. It touches no host.
options:
  directory: {description: Folder of the CA; absolute., type: path, required: true}
  hosts: {description: Every host of the inventory that has a certificate., type: list, elements: str, required: true}
  names:
    description: Name of the certificate's files for each of I(hosts).
    type: dict
    default: {}
  passphrase: {description: Passphrase of the CA's key; empty if there is none., type: str, default: ""}
  passphrase_source: {description: Where it comes from. For messages., type: str, default: ""}
  passphrase_file: {description: File that was named for it; empty if none was., type: str, default: ""}
  generate_passphrase:
    description: Whether the passphrase of a new CA is made up, if there is none, and kept in I(directory).
    type: bool
    default: false
  new: {description: Whether a CA that doesn't serve is replaced by a new one., type: bool, default: false}
  days: {description: Days that a new CA is valid., type: int, default: 7300}
"""

RETURN = r"""
action: {description: What was done, one of C(use), C(restore), C(make)., type: str, returned: success}
signs: {description: Whether the CA can sign in this run; false in some dry runs., type: bool, returned: success}
certificate: {description: The certificate of the CA (PEM); empty in a dry run that would make it., type: str}
fingerprint: {description: SHA-256 of that certificate., type: str, returned: success}
expiring: {description: Warnings of certificates that end soon., type: list, elements: str, returned: success}
"""
