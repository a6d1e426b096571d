#!/usr/bin/python
"""Documentation of the action plugin of this name, which needs no Python on the router."""

from __future__ import annotations

DOCUMENTATION = r"""
module: uci_sections
short_description: Bring the sections of an OpenWrt router that are ours to what they are to be
description:
  - Reads the packages by C(uci export), compares the sections whose names begin with C(mpq_) or C(mpq6_) with the given
    ones, and changes what differs by one C(uci batch). Sections of others keep their content and their place.
  - Where the section of somebody else stands in the way of ours it fails, and names it. It fails as well where somebody
    has changes that aren't committed.
  - Only the services of packages that have changed are reloaded. What uci or a service refuses is taken back, and so is
    everything if the router can't be reached again within I(confirm_s).
  - With C(--check) it reads, and says by C(--diff) what would change.
  - Nothing but a shell and C(uci) is needed on the router.
options:
  packages:
    description: For each package its sections that are to be there, each with C(type), C(name) and C(options).
    type: dict
    required: true
  take_over:
    description: Sections of others, as C(package.section), that are deleted where they are there.
    type: list
    elements: str
    default: []
  confirm_s:
    description: Seconds within which the router has to be reachable again, over a new connection, after a change.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Bring our sections of the router's configuration to what they are to be
  uci_sections:
    packages: "{{ mpquic_slice.packages }}"
    take_over: [mwan3.default_rule_v4]
"""

RETURN = r"""
commands: {description: What C(uci batch) was given, or would be., returned: success, type: list}
reloaded: {description: Packages whose services were reloaded., returned: success, type: list}
"""
