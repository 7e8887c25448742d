"""The one error of the backend layer."""


class BackendError(RuntimeError):
    """A backend cannot be chosen, loaded or used, or arrays of several meet in one call."""
