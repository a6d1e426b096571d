"""Everything that follows from a site's variables, without Ansible in it."""
