"""The reference site and its WANs on one machine, in namespaces."""
