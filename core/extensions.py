"""Extension points: what installed packages, or this program, add to the checks, filters, families, losses and teacher protocols.

A recipe names an extension, and only the entry point of that name is imported; no file decides what else is. Knows the names of
the five groups, and nothing of what an extension does.
"""

import difflib
import functools
import hashlib
import inspect
import re
import sys
import uuid
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from core.errors import UsageError

T = TypeVar("T")

ExtensionKind = Literal["check", "filter", "family", "loss", "protocol"]
GROUPS: dict[ExtensionKind, str] = {
    "check": "stillhouse.checks",
    "filter": "stillhouse.filters",
    "family": "stillhouse.families",
    "loss": "stillhouse.losses",
    "protocol": "stillhouse.protocols",
}
"""The group of entry points of each kind."""
BASES: dict[ExtensionKind, str] = {
    "check": "stillhouse.Check",
    "filter": "stillhouse.Filter",
    "family": "stillhouse.RecipeFamily",
    "loss": "stillhouse.Loss",
    "protocol": "stillhouse.TeacherProtocol",
}
"""The public name of the type of each kind, for messages."""
EXTENSION_ERROR = "extension"
"""Type of a validation error whose message is a whole sentence."""
NAME = re.compile(r"[a-z][a-z0-9_-]*")
PROCESS = uuid.uuid4().hex[:16]
"""Identifies code without a source that can be read: it equals no code of another process."""

_registered: dict[ExtensionKind, dict[str, Any]] = {kind: {} for kind in GROUPS}


class UnusableExtension(UsageError):
    """An extension that does not exist, cannot be imported, or is not what its entry point says."""


class Extension(NamedTuple, Generic[T]):
    """What a name refers to, outside the built-in names."""

    kind: ExtensionKind
    name: str
    value: T
    origin: str
    """The distribution and its version, or "" if this program registered it."""
    module: str = ""
    """The module of its entry point."""

    @property
    def title(self) -> str:
        return f"the {self.kind} {self.name!r} of {self.origin or 'this program'}"

    @property
    def identity(self) -> str:
        """Distribution, version and a hash of the source: equal where the extension does the same."""
        return f"{self.origin or 'registered'} {hash_source(self.value, self.module)}"


class ExtensionPoint(Generic[T]):
    """One kind of extension: where to find it, what it must be, and which names are taken."""

    def __init__(
        self, kind: ExtensionKind, expected: type[Any], built_in: Callable[[], Collection[str]],
        read_name: Callable[[T], str] = lambda value: str(getattr(value, "name", "")), reserved: Collection[str] = (),
    ) -> None:  # fmt: skip
        """`expected` is the type of the value: for filters and families the base class of a class, for others the class of an
        object. `built_in` returns the built-in names. No extension may have a `reserved` name.
        """
        self.kind, self._expected, self._built_in, self._read_name = kind, expected, built_in, read_name
        self._reserved = reserved
        self._is_class = kind in ("filter", "family")

    def find(self, name: str, taken: Collection[str] = ()) -> Extension[T] | None:
        """The extension of this name; None if the name is built-in or `taken`, or unknown.

        Raises:
            UnusableExtension: if a package or this program offers a built-in or taken name, or an offer cannot be used.
        """
        points = self._list_points(name)
        if name in self._built_in() or name in taken:
            if name in _registered[self.kind]:
                raise UnusableExtension(
                    f"this program registered a {self.kind} {name!r}, which is the name of a built-in {self.kind}; give yours "
                    "another name"
                )
            if points:
                raise UnusableExtension(
                    f"the package {_describe_origin(points[0])} offers a {self.kind} {name!r}, which is the name of a built-in "
                    f"{self.kind}; uninstall the package, or rename its entry point in {GROUPS[self.kind]}"
                )
            return None
        if name in _registered[self.kind]:
            return Extension(self.kind, name, _registered[self.kind][name], "")
        if len(points) > 1:
            origins = " and ".join(sorted(map(_describe_origin, points)))
            raise UnusableExtension(
                f"{origins} both offer a {self.kind} {name!r}; uninstall one of them, since a name is of one package"
            )
        return self._load(points[0]) if points else None

    def require(self, name: str, taken: Collection[str] = ()) -> Extension[T]:
        """As `find`, for a name that is not built-in.

        Raises:
            UnusableExtension: also if there is none of this name; the text has the known ones.
        """
        if found := self.find(name, taken):
            return found
        raise UnusableExtension(self.describe_unknown(name, taken))

    def describe_unknown(self, name: str, taken: Collection[str] = ()) -> str:
        """Why `name` cannot be used: the nearest known name, and all of them."""
        known = list(dict.fromkeys([*self._built_in(), *taken, *self.list_names()]))
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {near[0]!r}? " if near else ""
        noun = "provider" if self.kind == "protocol" else self.kind
        return f"unknown {noun} {name!r}; {advice}known are {', '.join(known)}"

    def list_names(self) -> list[str]:
        """The names that installed packages and this program offer, without importing anything."""
        return sorted({*read_entry_points(self.kind).names, *_registered[self.kind]})

    def register(self, value: T) -> T:
        """Make `value` known in this process under its own name. A second one of the same name replaces the first.

        Raises:
            UnusableExtension: if the name is built-in, or offered by an installed package, or `value` is of another type.
        """
        if fault := self._find_fault(value):
            raise UnusableExtension(f"register: {value!r} {fault}")
        name = self._read_name(value)
        if name in self._built_in():
            raise UnusableExtension(
                f"register: {name!r} is the name of a built-in {self.kind}; give yours another name"
            )
        if points := self._list_points(name):
            raise UnusableExtension(
                f"register: the installed package {_describe_origin(points[0])} offers a {self.kind} {name!r} already; give "
                "yours another name"
            )
        _registered[self.kind][name] = value
        return value

    def _list_points(self, name: str) -> Sequence[EntryPoint]:
        """The entry points of this name, one for each distribution: a path that is listed twice has it twice."""
        points = read_entry_points(self.kind).select(name=name)
        return list({_describe_origin(point): point for point in reversed(tuple(points))}.values())

    def _load(self, point: EntryPoint) -> Extension[T]:
        origin = _describe_origin(point)
        title = f"the {self.kind} {point.name!r} of {origin} ({point.value})"
        try:
            value = point.load()
        except (Exception, SystemExit) as error:
            raise UnusableExtension(
                f"{title} cannot be imported: {type(error).__name__}: {error}; repair or uninstall the package"
            ) from None
        if fault := self._find_fault(value):
            raise UnusableExtension(f"{title} {fault}")
        if (own := self._read_name(value)) != point.name:
            raise UnusableExtension(
                f"{title} calls itself {own!r}; entry point and {self.kind} must have the same name"
            )
        return Extension(self.kind, point.name, value, origin, point.module)

    def _find_fault(self, value: Any) -> str | None:
        """Why `value` is no extension of this kind."""
        wanted = BASES[self.kind]
        if self._is_class:
            if not (isinstance(value, type) and issubclass(value, self._expected)):
                return f"is no class derived from {wanted}"
            if missing := sorted(getattr(value, "__abstractmethods__", ())):
                return f"has no method {' and '.join(missing)}, which a class derived from {wanted} needs"
        elif not isinstance(value, self._expected):
            return f"is {type(value).__name__} and no {wanted}"
        if not NAME.fullmatch(name := self._read_name(value)):
            return f"has the name {name!r}; a name is of lowercase letters, digits, _ and -, and begins with a letter"
        if name in self._reserved:
            return f"has a reserved name; give it another name than {', '.join(self._reserved)}"
        return None


def read_entry_points(kind: ExtensionKind) -> EntryPoints:
    """All entry points of a kind that installed packages offer. All packages' metadata is read once, and again when a package
    was added to the folders of `sys.path` or removed from them.
    """
    return _read_all_entry_points(tuple((folder, _read_change(folder)) for folder in sys.path))[kind]


@functools.lru_cache(maxsize=1)
def _read_all_entry_points(_folders: tuple[tuple[str, int], ...]) -> dict[ExtensionKind, EntryPoints]:
    points = entry_points()
    return {kind: points.select(group=group) for kind, group in GROUPS.items()}


def _read_change(folder: str) -> int:
    """When a file was added to a folder or removed from it, in nanoseconds; 0 for what is no folder."""
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return 0


def find_registered(extensions: Collection[Extension[Any]], purpose: str) -> str | None:
    """Why `purpose`, work in other processes, cannot use these extensions; None if all are of installed packages."""
    for extension in extensions:
        if not extension.origin:
            return (
                f"{purpose} works in other processes, which do not know {extension.title}; offer it as an entry point "
                f"{GROUPS[extension.kind]} of an installed package"
            )
    return None


def hash_source(value: Any, module: str = "") -> str:
    """A hash of the Python files of the package that defines `value`, and of that of `module`, the module of its entry point;
    in a notebook, of its own source. The arguments of a registered `partial` are part of it; those of an installed one are in
    the files of its package.
    """
    code = next((part for part in (getattr(value, name, None) for name in ("run", "compute", "open")) if part), value)
    code, arguments = _unwrap_partial(code)
    tops = dict.fromkeys(name.partition(".")[0] for name in (str(getattr(code, "__module__", "")), module))
    files = [file for top in tops for file in _list_source_files(top)]
    digest = hashlib.sha256(b"" if module else "".join(arguments).encode())
    try:
        for file in files:
            digest.update(file.read_bytes())
        if not files:
            digest.update(inspect.getsource(code).encode())
    except (OSError, TypeError):
        return f"{PROCESS}-{id(code)}"
    return digest.hexdigest()[:16]


def _unwrap_partial(code: Any) -> tuple[Any, list[str]]:
    """The function below decorators and `functools.partial`, and the arguments of each partial."""
    arguments = []
    while isinstance(code := inspect.unwrap(code), functools.partial):
        arguments.append(f"{code.args!r} {sorted(code.keywords.items())!r}")
        code = code.func
    return code, arguments


def _list_source_files(package: str) -> list[Path]:
    """The Python files of an imported package; of a module, its own. None in a notebook."""
    top = sys.modules.get(package)
    files = [Path(file)] if (file := getattr(top, "__file__", None)) else []
    return files + [file for folder in getattr(top, "__path__", ()) for file in sorted(Path(folder).rglob("*.py"))]


def _describe_origin(point: EntryPoint) -> str:
    """`NAME VERSION` of the distribution."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.module
