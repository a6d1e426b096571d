"""Settings of property tests for a machine that does other things too: how long an example takes is no property."""

from hypothesis import HealthCheck, settings

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
