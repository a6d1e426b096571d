"""Measures tunnels side by side: the same cases, on the same machine, in alternation."""
