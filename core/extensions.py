"""Extension points: the typed view of seven kinds of parts, which plugins or this program add to the checks, filters, sources of
seeds, families, losses, teacher protocols and steps of students.

A recipe names an extension, and only the part of that name is imported; no file decides what else is. Knows nothing of what an
extension does.
"""

import contextlib
import difflib
import functools
import hashlib
import inspect
import re
import sys
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from core.plugins import Part, Plugin, UnusablePlugin, describe_faults, find_part, import_part, list_offered_names

T = TypeVar("T")

ExtensionKind = Literal["check", "filter", "source", "family", "loss", "protocol", "step"]
BASES: dict[ExtensionKind, str] = {
    "check": "stillhouse.Check",
    "filter": "stillhouse.Filter",
    "source": "stillhouse.SeedSource",
    "family": "stillhouse.RecipeFamily",
    "loss": "stillhouse.Loss",
    "protocol": "stillhouse.TeacherProtocol",
    "step": "stillhouse.StudentStep",
}
"""The public name of the type of each kind, for messages."""
EXTENSION_ERROR = "extension"
"""Type of a validation error whose message is a whole sentence."""
NAME = re.compile(r"[a-z][a-z0-9_-]*")
PROCESS = uuid.uuid4().hex[:16]
"""Identifies code without a source that can be read: it equals no code of another process."""

_registered: dict[ExtensionKind, dict[str, Any]] = {kind: {} for kind in BASES}


class Extension(NamedTuple, Generic[T]):
    """What a name refers to, outside the built-in names."""

    kind: ExtensionKind
    name: str
    value: T
    origin: str
    """The distribution and its version, or "" if this program registered it."""
    module: str = ""
    """The module of its entry point."""
    own: bool = False
    """Whether it is of this repository: then the version of Stillhouse says what it does."""
    extra: str = ""
    """The extra of Stillhouse with its requirements, if it is of a plugin."""

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
        self._is_class = kind in ("filter", "source", "family", "step")

    def find(self, name: str, taken: Collection[str] = ()) -> Extension[T] | None:
        """The extension of this name; None if the name is built-in or `taken`, or unknown.

        Raises:
            UnusablePlugin: if a plugin or this program offers a built-in or taken name, or an offer cannot be used.
        """
        offered, found = name in _registered[self.kind], find_part(self.kind, name)
        if name in self._built_in() or name in taken:
            what = f"a {self.kind} {name!r}, which is the name of a built-in {self.kind}"
            if offered:
                raise UnusablePlugin(f"this program registered {what}; give yours another name")
            if found:
                raise UnusablePlugin(f"{_describe_owner(found[0])} offers {what}; uninstall it, or rename its part")
            return None
        if offered:
            return Extension(self.kind, name, _registered[self.kind][name], "")
        return self._load(*found) if found else None

    def require(self, name: str, taken: Collection[str] = ()) -> Extension[T]:
        """As `find`, for a name that is not built-in.

        Raises:
            UnusablePlugin: also if there is none of this name; the text has the known ones.
        """
        if found := self.find(name, taken):
            return found
        raise UnusablePlugin(self.describe_unknown(name, taken))

    def describe_unknown(self, name: str, taken: Collection[str] = ()) -> str:
        """Why `name` cannot be used: the nearest known name, all of them, and the plugins that cannot be imported."""
        known = list(dict.fromkeys([*self._built_in(), *taken, *self.list_names()]))
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {near[0]!r}? " if near else ""
        noun = "provider" if self.kind == "protocol" else self.kind
        return f"unknown {noun} {name!r}; {advice}known are {', '.join(known)}{describe_faults()}"

    def list_names(self) -> list[str]:
        """The names that plugins and this program offer, without importing a part."""
        return sorted({*list_offered_names(self.kind), *_registered[self.kind]})

    def list_usable(self) -> list[T]:
        """What plugins and this program offer, without what cannot be used: for messages and listings."""
        usable = []
        for name in self.list_names():
            with contextlib.suppress(UnusablePlugin):
                usable.append(self.require(name).value)
        return usable

    def register(self, value: T) -> T:
        """Make `value` known in this process under its own name. A second one of the same name replaces the first.

        Raises:
            UnusablePlugin: if the name is built-in, or offered by a plugin, or `value` is of another type.
        """
        if fault := self._find_fault(value):
            raise UnusablePlugin(f"register: {value!r} {fault}")
        name = self._read_name(value)
        if name in self._built_in():
            what = f"{name!r} is the name of a built-in {self.kind}"
            raise UnusablePlugin(f"register: {what}; give yours another name")
        if found := find_part(self.kind, name):
            what = f"{_describe_owner(found[0])} offers a {self.kind} {name!r} already"
            raise UnusablePlugin(f"register: {what}; give yours another name")
        _registered[self.kind][name] = value
        return value

    def _load(self, plugin: Plugin, part: Part) -> Extension[T]:
        title = f"the {self.kind} {part.name!r} of {_describe_owner(plugin)}"
        value = import_part(plugin, part)
        if fault := self._find_fault(value):
            raise UnusablePlugin(f"{title} {fault}")
        if (own := self._read_name(value)) != part.name:
            raise UnusablePlugin(f"{title} calls itself {own!r}; part and {self.kind} must have the same name")
        return Extension(
            self.kind, part.name, value, plugin.origin or "stillhouse", plugin.module, not plugin.origin, plugin.extra
        )

    def _find_fault(self, value: Any) -> str | None:
        """Why `value` is not an extension of this kind."""
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


def find_registered(extensions: Collection[Extension[Any]], purpose: str) -> str | None:
    """Why `purpose`, work in other processes, cannot use these extensions; None if all are of installed packages."""
    for extension in extensions:
        if not extension.origin:
            return (
                f"{purpose} works in other processes, which do not know {extension.title}; make it a part of an "
                "installed plugin"
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


def _describe_owner(plugin: Plugin) -> str:
    return plugin.origin or f"the plugin {plugin.name!r}"
