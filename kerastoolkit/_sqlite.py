"""SQLite files that may be of another program, or come from a stranger: looked at before anything is written to them.

SQLite itself writes when it opens a file: it takes back what a crash left half done. And a file may bring more than
data: views, triggers and columns that compute. So a file is looked at without opening it for writing, and has exactly
the table that we make, or is refused. A row may still be anything: who reads it checks it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

__all__ = ["Look", "application_of", "connect", "has_table", "look"]

_BEGINNING = b"SQLite format 3\0"


class Look(NamedTuple):
    """What a database says of itself.

    Attributes:
        application: The number by which a program marks its files; 0 where it does not.
        version: The number that the program gives to its format.
        columns: Names of the columns of each table.
        computes: Whether it does more than keep rows: has views, triggers or columns that are computed.
        damage: What SQLite finds wrong with it, if it was looked at thoroughly; "ok" for nothing.
    """

    application: int
    version: int
    columns: dict[str, frozenset[str]]
    computes: bool
    damage: str

    @property
    def is_empty(self) -> bool:
        """Whether it is nobody's yet."""
        return not (self.application or self.version or self.columns or self.computes)


def application_of(path: str | Path) -> int | None:
    """The number by which a program marked a file, read from its first bytes; None if it is no database of SQLite.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        header = file.read(100)
    is_one = len(header) == 100 and header.startswith(_BEGINNING)
    return int.from_bytes(header[68:72], "big") if is_one else None


def look(path: str | Path, *, seconds: float = 30, thoroughly: bool = False) -> Look:
    """Looks at a database without changing a byte of it.

    Args:
        path: The file, which is there.
        seconds: How long to wait for another process that writes. Defaults to `30`.
        thoroughly: Whether to look at every page of it for damage. Defaults to `False`.

    Returns:
        What it says of itself.

    Raises:
        sqlite3.Error: It is no database of SQLite, or is damaged.
        UnicodeDecodeError: It is damaged, and SQLite's message has letters of it that are none.
        OSError: The file cannot be read.
    """
    if application_of(path) is None:
        raise sqlite3.DatabaseError("file is not a database")
    # Without the first, SQLite would take back what a crash left half done. What stands in a file beside it, which it
    # has to open for that, is seen with the second only.
    mode = "mode=ro" if os.path.exists(f"{os.fspath(path)}-wal") else "immutable=1"
    address = f"{Path(os.path.abspath(path)).as_uri()}?{mode}"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=seconds)) as file:
        _restrict(file)
        file.execute("BEGIN")  # all of it as it is at one moment: another process may be making it
        application = file.execute("PRAGMA application_id").fetchone()[0]
        version = file.execute("PRAGMA user_version").fetchone()[0]
        kinds = file.execute("SELECT type, name FROM sqlite_master LIMIT 1000").fetchall()
        computes = any(kind in ("view", "trigger") for kind, _ in kinds)
        columns = {}
        for table in [name for kind, name in kinds if kind == "table"]:
            found = file.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", (table,)).fetchall()
            columns[table] = frozenset(name for name, _ in found)
            computes = computes or any(hidden for _, hidden in found)
        damage = str(file.execute("PRAGMA integrity_check(1)").fetchone()[0]) if thoroughly else "ok"
    return Look(application, version, columns, computes, damage)


def connect(path: str | Path, *, seconds: float, most_bytes: int) -> sqlite3.Connection:
    """Opens a database so that it can do nothing but give rows.

    Args:
        path: The file.
        seconds: How long to wait for another process that writes.
        most_bytes: Most bytes of a text or a BLOB; to read a longer one is an error of SQLite.

    Returns:
        The connection, in which transactions are begun by hand: Python's own begin too late to see what another
        process wrote.
    """
    # As a full path: SQLite takes ":memory:" and what begins with "file:" for something else than a file.
    file = sqlite3.connect(os.path.abspath(path), timeout=seconds, isolation_level=None, check_same_thread=False)
    _restrict(file)
    file.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, most_bytes)
    return file


def _restrict(file: sqlite3.Connection) -> None:
    file.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    file.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2**20)
    try:
        file.execute("PRAGMA trusted_schema = OFF")
        file.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        file.close()
        raise


def has_table(file: sqlite3.Connection, name: str, statement: str) -> bool:
    """Whether a database holds one table and nothing else.

    Args:
        file: The database.
        name: Name of the table, which has one key that is no number.
        statement: The SQL by which we make it.

    Returns:
        True if it does, False if the database is empty.

    Raises:
        sqlite3.DatabaseError: It holds something else, such as a view or a trigger, or is damaged.
        UnicodeDecodeError: It is damaged, and SQLite's message has letters of it that are none.
    """
    found = file.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name LIMIT 3").fetchall()
    ours = [("table", name, name, statement), ("index", f"sqlite_autoindex_{name}_1", name, None)]
    if found and found != ours:
        raise sqlite3.DatabaseError("it holds other tables, views or triggers than ours")
    return bool(found)
