"""The error of a backend that does not run here; commands report it without a traceback."""


class BackendError(RuntimeError):
    """A backend that was named but does not run on this machine, or not on this device."""
