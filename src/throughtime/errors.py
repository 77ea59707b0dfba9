"""The two errors a user can cause. Each message is one line: the thing, the value, the remedy."""


class ThroughtimeError(ValueError):
    """Input that cannot be worked with: a text, a run folder, a training that failed. The command line exits 1."""


class SettingError(ThroughtimeError):
    """A setting that is unknown or has a wrong value. The command line exits 2."""
