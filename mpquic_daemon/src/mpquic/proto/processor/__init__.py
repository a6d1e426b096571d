"""Whose work is done next when processor time is short."""
