"""The stored tables of a new database of Prefect."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from core.project_files import PROJECT
from flows.prefect_server.new_database import NOTICE, TABLES, create_database


@pytest.mark.slow
def test_a_database_from_the_stored_tables_is_what_all_migrations_make(tmp_path: Path) -> None:
    """Also with a newer Prefect, whose new migrations then run on the stored tables."""
    create_database(database := tmp_path / "prefect.db")
    home = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(upgrade, env=home, capture_output=True, check=True)
    with sqlite3.connect(database) as connection:
        upgraded = "\n".join([NOTICE, *connection.iterdump()])
    migrate = [sys.executable, "-m", "flows.prefect_server.new_database"]
    migrated = subprocess.run(migrate, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert sort_lines(upgraded) == sort_lines(migrated)


def sort_lines(tables: str) -> list[str]:
    """Prefect's migrations write the constraints of a table in any order."""
    return sorted(line.strip().rstrip(",") for line in tables.splitlines())


def test_an_existing_database_is_kept_and_an_older_prefect_makes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (existing := tmp_path / "existing.db").write_bytes(b"records")
    create_database(existing)
    assert existing.read_bytes() == b"records"
    (newer := tmp_path / "tables.sql").write_text(TABLES.read_text().replace("27d8f4e1a6c9", "0123456789ab"))
    monkeypatch.setattr("flows.prefect_server.new_database.TABLES", newer)
    create_database(tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()
