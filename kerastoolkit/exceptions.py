"""Every exception and warning of kerastoolkit, in one tree.

KerasToolkitError
├── ParameterError (ValueError)        a parameter that could reach nothing, or a value that cannot be
├── DataError (ValueError)             data that cannot be learned from: shapes, types, targets, tables
├── ModelMismatchError (ValueError)    a model that does not fit its target: units, activation, loss
├── DivergedError (ValueError)         a network whose weights, loss or output are no numbers any more
├── SavedFileError (ValueError)        a saved file that is damaged, foreign or too new
├── DistributionError (RuntimeError)   a way to distribute a model that cannot be had here, or that Keras gets wrong
├── ExportError (ValueError)           a model that a format cannot hold, or a file that answers unlike its model
├── ServerError (ConnectionError)      a server that cannot be reached, or refuses or fails to answer
├── JournalError (OSError)             a journal that cannot be read or written: locked, full, read-only
└── MissingPackageError (ImportError)  an optional package that is not installed

KerasToolkitWarning (UserWarning)      something the user should know; the work goes on

Each error is also the builtin that callers of scikit-learn catch, so that `except ValueError` goes on working.
Every message says what is wrong, which argument, what came, and what to do. What came may hold anything, such as the
escape sequences of a terminal in the name of a column: a message shows them spelt out.
"""

from __future__ import annotations

from kerastoolkit._words import printable

__all__ = [
    "DataError",
    "DistributionError",
    "DivergedError",
    "ExportError",
    "JournalError",
    "KerasToolkitError",
    "KerasToolkitWarning",
    "MissingPackageError",
    "ModelMismatchError",
    "ParameterError",
    "SavedFileError",
    "ServerError",
]


class KerasToolkitError(Exception):
    """Root of every error raised by kerastoolkit on purpose."""

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n")


class ParameterError(KerasToolkitError, ValueError):
    """A parameter that could reach nothing, or whose value cannot be used."""


class DataError(KerasToolkitError, ValueError):
    """Data that cannot be learned from as it is."""


class ModelMismatchError(KerasToolkitError, ValueError):
    """A model whose outputs, activation or loss do not fit the target."""


class DivergedError(KerasToolkitError, ValueError):
    """A network whose weights, loss or output are NaN or infinite, and of which nothing can be predicted."""


class SavedFileError(KerasToolkitError, ValueError):
    """A saved file that is damaged, of another kind, or written by a newer version."""


class DistributionError(KerasToolkitError, RuntimeError):
    """A way to distribute a model that cannot be had on these devices or this backend, or that Keras gets wrong."""


class ExportError(KerasToolkitError, ValueError):
    """A model that a format cannot hold, or a file that does not answer as its model does; nothing was written."""


class ServerError(KerasToolkitError, ConnectionError):
    """A server of a model cannot be reached, or refuses or fails to answer."""


class JournalError(KerasToolkitError, OSError):
    """The journal of a search cannot be read or written: it is locked, or the disk is full or read-only."""


class MissingPackageError(KerasToolkitError, ImportError):
    """An optional package is not installed."""


class KerasToolkitWarning(UserWarning):
    """Something the user should know; the work goes on."""

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n")
