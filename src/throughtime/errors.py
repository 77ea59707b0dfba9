"""What a user meets when something cannot go on. Each message is one line: the thing, the value, the remedy."""


class ThroughtimeError(ValueError):
    """Input that cannot be worked with: a text, a run folder, a training that failed. The command line exits 1."""


class SettingError(ThroughtimeError):
    """A setting that is unknown or has a wrong value. The command line exits 2."""


class TerminationError(ThroughtimeError):
    """The system asked a training to end (SIGTERM), and it did, after a checkpoint. The command line exits 143."""
