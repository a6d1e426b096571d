"""What `make test` runs: the steps, their logs and results, and the table at the end.

Standard library only: it runs with the system's Python, also when the virtual environment is broken.
"""
