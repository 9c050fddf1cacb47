"""The version, in a file of its own so that building the package reads it without importing anything."""

__version__ = "0.1.0"
