#!/usr/bin/python
"""Documentation of the action plugin of this name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mpquic_plan
short_description: Build the plan of all sites and VPSes
description:
  - Takes the variables C(site) and C(vps) of every host of the inventory, whatever the play is limited to, checks them
    all, and returns what the roles render for each host. It touches no host.
  - If anything is wrong it shows every problem, one a line, as C(host - path in the variables - what to do), and fails.
options:
  site_group:
    description: Group whose hosts, and no others, have C(site).
    type: str
    default: sites
  vps_group:
    description: Group whose hosts, and no others, have C(vps).
    type: str
    default: vps
  router_group:
    description: Group of the OpenWrt routers that C(site.openwrt.host) names.
    type: str
    default: openwrt
  known_variables:
    description:
      - The suite's other variables. If the list isn't empty, a variable that begins with C(mpquic_) and isn't in it
        is an error.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Plan
  hosts: sites:vps
  gather_facts: false
  tasks:
    - name: Build the plan of the fleet
      mpquic_plan:
      run_once: true
      register: mpquic_plan

- name: Provision
  hosts: sites:vps
  vars:
    mpquic_slice: "{{ mpquic_plan.hosts[inventory_hostname] }}"
"""

RETURN = r"""
hosts:
  description: For each host that has C(site) or C(vps) its slice of the plan, plain data.
  type: dict
  returned: success
routers:
  description: For each OpenWrt router that a site names its slice, plain data.
  type: dict
  returned: success
"""
