"""The one exception of the lab whose text is meant for the person at the terminal."""


class LabError(Exception):
    """Something the user can act on: the text is one sentence that says what is wrong and what to do."""
