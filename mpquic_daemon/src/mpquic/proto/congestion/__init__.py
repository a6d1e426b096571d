"""Congestion control: controllers, pacing, and when slow start ends."""
