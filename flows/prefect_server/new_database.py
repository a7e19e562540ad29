"""A new SQLite database of Prefect, made from its stored tables: the migrations that make the same from nothing take most of a
server's first start.

python -m flows.prefect_server.new_database > flows/prefect_server/tables.sql   # of the installed Prefect
"""

import asyncio
import os
import sqlite3
import sys
import tempfile
from pathlib import Path

TABLES = Path(__file__).with_name("tables.sql")
NOTICE = (
    "-- The tables of a new database of Prefect (Apache-2.0), written by `python -m flows.prefect_server.new_database`."
)


def create_database(path: Path) -> None:
    """Create the database with the stored tables. The server then runs only the migrations that came after them. Without effect
    if the database exists, or if the installed Prefect is older than the tables.
    """
    import prefect.server.database as database

    versions = Path(database.__file__).parent / "_migrations" / "versions" / "sqlite"
    tables = TABLES.read_text(encoding="utf-8")
    revision = tables.partition('"alembic_version" VALUES(\'')[2].partition("'")[0]
    if path.exists() or not any(versions.glob(f"*_{revision}_*.py")):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        connection = sqlite3.connect(unfinished)
        connection.executescript(tables)
        connection.close()
        if not path.exists():
            unfinished.replace(path)


def _print_tables() -> None:
    """Print the tables that Prefect's migrations make from nothing."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["PREFECT_HOME"] = home
        from prefect.server.database import provide_database_interface

        asyncio.run(provide_database_interface().create_db())
        with sqlite3.connect(Path(home) / "prefect.db") as connection:
            sys.stdout.write("\n".join([NOTICE, *connection.iterdump(), ""]))


if __name__ == "__main__":
    _print_tables()
