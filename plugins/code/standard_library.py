"""The reference `python`: real code that every machine has, made on first use."""

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from core.errors import UsageError
from core.installation import read_version
from flows.data.reference_files import (
    MIN_FUNCTION_WORDS,
    Reference,
    ReferenceRecord,
    count_passage_words,
    hash_texts,
    read_reference,
    split_into_functions,
    write_reference,
)

REFERENCE_CACHE_FOLDER = "references"
"""The folder in a cache for named references, next to the null distributions."""
LIBRARY_BUILD = 2
"""Part of the name of the cached standard library: a change of what is taken from it makes another file."""
LEFT_OUT_PACKAGES = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "__pycache__"}
)
"""Folders of the standard library that are tests, demonstrations, or no part of it."""
MAX_LIBRARY_BYTES = 4 << 20
"""A larger file is a table."""


def load_standard_library(cache: Path | None) -> Reference:
    """The functions of the standard library of the running Python, from its installed files.

    Raises:
        UsageError: if the library is not installed as source.
    """
    name = f"python-{sys.version_info.major}.{sys.version_info.minor}-standard-library"
    file = None
    if cache:
        version = ".".join(map(str, sys.version_info[:3]))
        file = cache / REFERENCE_CACHE_FOLDER / f"python-{version}-standard-library-{LIBRARY_BUILD}.parquet"
        if file.is_file():
            return read_reference(file, name)._replace(general=True)
    functions = dict(_list_library_functions(Path(sysconfig.get_path("stdlib"))))
    if not functions:
        raise UsageError(
            "the reference python: the standard library of this Python is not installed as source; give a file of real code, or "
            "turn the comparison off (`collapse.reference = false`)"
        )
    texts, origins = list(functions), list(functions.values())
    record = ReferenceRecord(
        kind="code", source=f"the standard library of Python {sys.version.split()[0]}, PSF License Version 2",
        texts=len(set(origins)), documents=len(texts), words=sum(map(count_passage_words, texts)), seed=0, read=len(texts),
        sha256=hash_texts(texts), version=read_version(),
    )  # fmt: skip
    if file:
        write_reference(file, texts, origins, record)
    return Reference(name, texts, origins, record, general=True)


def _list_library_functions(library: Path) -> Iterator[tuple[str, str]]:
    """Each function with its package, or its module outside packages: functions of a package share names."""
    for parent, folders, names in os.walk(library):
        folders[:] = sorted(set(folders) - LEFT_OUT_PACKAGES)
        for path in [Path(parent, name) for name in sorted(names) if name.endswith(".py")]:
            if path.stat().st_size > MAX_LIBRARY_BYTES:
                continue
            for function in split_into_functions(path.read_text(encoding="utf-8", errors="replace")):
                if count_passage_words(function) >= MIN_FUNCTION_WORDS:
                    yield function, path.relative_to(library).parts[0]
