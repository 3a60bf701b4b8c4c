"""Errors that a user can act on. Anything else is a bug and keeps its traceback."""


class PandaError(Exception):
    """Work failed (exit code 1): one sentence that says what happened and what to do."""

    exit_code = 1


class BadInput(PandaError):
    """The input is wrong (exit code 2): one sentence that names file, line or field and says what to do."""

    exit_code = 2


class Interrupted(PandaError):
    """Work was stopped on purpose (signal, time budget) and saved; the message says how to go on (exit code 3)."""

    exit_code = 3


class Busy(PandaError):
    """Another process is doing this very work (exit code 1): wait for it, or do something else meanwhile."""
