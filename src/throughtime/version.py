"""The version, where any part may read it."""

VERSION = "0.1.0"
