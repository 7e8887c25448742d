"""How ranks end."""


class RanksError(RuntimeError):
    """Ranks that cannot train together: what is different, on which of them, and what to do."""


class Told(SystemExit):
    """The end of a rank whose error another rank tells."""
