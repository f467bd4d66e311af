"""Errors of this folder that commands report without a traceback."""


class BackendError(RuntimeError):
    """A backend that was named but does not run on this machine, or not on this device."""
