"""What the command line says in one line."""

from __future__ import annotations


class BadInputError(Exception):
    """Input that the user can mend; its text is the line printed."""
