"""The command `mpqlab`."""
