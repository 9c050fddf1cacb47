"""SQLite files that may belong to another program, or come from a stranger: inspected before anything is written.

SQLite itself writes when it opens a file: it undoes what a crash left half done. And a file may hold more than data:
views, triggers and columns that compute. So a file is inspected without opening it for writing, and either has exactly
the table that we create, or is refused. A row may still hold anything: whoever reads it checks it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["DatabaseInfo", "application_of", "connect", "has_table", "inspect_database", "write_ahead"]

_BEGINNING = b"SQLite format 3\0"


class DatabaseInfo(NamedTuple):
    """What a database says about itself.

    Attributes:
        application: The number with which a program marks its files; 0 if it does not.
        version: The number that the program gives to its format.
        columns: Names of the columns of each table.
        computes: Whether it does more than keep rows: has views, triggers or columns that are computed.
        damage: What SQLite finds wrong with it, if its integrity was checked; "ok" for nothing.
    """

    application: int
    version: int
    columns: dict[str, frozenset[str]]
    computes: bool
    damage: str

    @property
    def is_empty(self) -> bool:
        """Whether no program has used it yet."""
        return not (self.application or self.version or self.columns or self.computes)


def application_of(path: str | Path) -> int | None:
    """The number by which a program marked a file, read from its first bytes; None if it is not an SQLite database.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        header = file.read(100)
    is_one = len(header) == 100 and header.startswith(_BEGINNING)
    return int.from_bytes(header[68:72], "big") if is_one else None


def inspect_database(path: str | Path, *, timeout: float = 30, check_integrity: bool = False) -> DatabaseInfo:
    """Inspects a database without changing a byte of it.

    Args:
        path: The file, which must exist.
        timeout: How long to wait for another process that writes, in seconds. Defaults to `30`.
        check_integrity: Whether to check every page of it for damage. Defaults to `False`.

    Returns:
        What it says about itself.

    Raises:
        sqlite3.Error: It is not an SQLite database, or is damaged.
        UnicodeDecodeError: It is damaged, and SQLite's message quotes bytes of it that are not text.
        OSError: The file cannot be read.
    """
    if application_of(path) is None:
        raise sqlite3.DatabaseError("file is not a database")
    # Immutable, since SQLite would undo what a crash left half done. But what is still in a write-ahead log can only be
    # read without that.
    mode = "mode=ro" if os.path.exists(f"{os.fspath(path)}-wal") else "immutable=1"
    address = f"{Path(os.path.abspath(path)).as_uri()}?{mode}"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=timeout)) as file:
        _restrict(file)
        file.execute("BEGIN")  # a snapshot: another process may be creating it
        application = file.execute("PRAGMA application_id").fetchone()[0]
        version = file.execute("PRAGMA user_version").fetchone()[0]
        kinds = file.execute("SELECT type, name FROM sqlite_master LIMIT 1000").fetchall()
        computes = any(kind in ("view", "trigger") for kind, _ in kinds)
        columns = {}
        for table in [name for kind, name in kinds if kind == "table"]:
            found = file.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", (table,)).fetchall()
            columns[table] = frozenset(name for name, _ in found)
            computes = computes or any(hidden for _, hidden in found)
        damage = str(file.execute("PRAGMA integrity_check(1)").fetchone()[0]) if check_integrity else "ok"
    return DatabaseInfo(application, version, columns, computes, damage)


def connect(path: str | Path, *, timeout: float, max_bytes: int) -> sqlite3.Connection:
    """Opens a database so that it can do nothing but give rows.

    Args:
        path: The file.
        timeout: How long to wait for another process that writes, in seconds.
        max_bytes: Length of a text or a BLOB at most, in bytes; reading a longer one is an error of SQLite.

    Returns:
        The connection, in which transactions are begun explicitly: Python's own begin too late to see what another
        process wrote.
    """
    # As a full path, since ":memory:" and what begins with "file:" are not files for SQLite.
    file = sqlite3.connect(os.path.abspath(path), timeout=timeout, isolation_level=None, check_same_thread=False)
    _restrict(file)
    file.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max_bytes)
    return file


def _restrict(file: sqlite3.Connection) -> None:
    """Lets a connection run nothing that the file itself brings, and attach no other file."""
    file.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    file.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2**20)
    try:
        file.execute("PRAGMA trusted_schema = OFF")
        file.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        file.close()
        raise


def has_table(file: sqlite3.Connection, name: str, statement: str) -> bool:
    """Whether a database holds a certain table and nothing else.

    Args:
        file: The database.
        name: Name of the table, which has one key that is not a number.
        statement: The SQL by which we create it.

    Returns:
        True if it does, False if the database is empty.

    Raises:
        sqlite3.DatabaseError: It holds something else, such as a view or a trigger, or is damaged.
        UnicodeDecodeError: It is damaged, and SQLite's message quotes bytes of it that are not text.
    """
    found = file.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name LIMIT 3").fetchall()
    ours = [("table", name, name, statement), ("index", f"sqlite_autoindex_{name}_1", name, None)]
    if found and found != ours:
        raise sqlite3.DatabaseError("it holds other tables, views or triggers than ours")
    return bool(found)


def write_ahead(file: sqlite3.Connection, *, timeout: float) -> None:
    """Lets others read a database while it is written: the one mode for which SQLite does not wait for another process.

    Args:
        file: The database.
        timeout: How long to wait for another process, in seconds.

    Raises:
        sqlite3.OperationalError: Another process kept it busy for longer.
    """
    until = time.monotonic() + timeout
    while True:
        try:
            file.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)
