"""Plugins: packages that add parts to Stillhouse, ours in `plugins/` and installed ones by the entry point `stillhouse.plugins`.

A declaration names the parts of a plugin. A part is imported when a command, a recipe or a run names it, so a declaration imports
nothing but this module. Knows the kinds of parts, and nothing of what a part does.
"""

import functools
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from core.errors import UsageError, suggest_name
from core.project_files import PROJECT

PartKind = Literal[
    "command", "section", "family", "check", "filter", "source", "protocol", "batches", "script", "loss", "step", "capture",
    "filter_workers", "depot", "evaluation", "function", "reader", "tracer", "hooks", "release",
    "reference", "gguf",
]  # fmt: skip
GROUP = "stillhouse.plugins"
FOLDER = PROJECT / "plugins"
DATA = "plugins"
"""The folder of plugins' data in a run; of a file, after its name."""
PACKAGE = f"{__name__.removesuffix('core.plugins')}plugins"
"""`plugins` in a checkout, `stillhouse.plugins` in a wheel."""


class UnusablePlugin(UsageError):
    """A plugin or a part that does not exist, cannot be imported, or is not what its declaration says."""


@dataclass(frozen=True)
class Part:
    """One thing that a plugin adds, by kind and name."""

    kind: PartKind
    name: str
    load: Callable[[], Any]
    """Imports the part and returns it."""


def load_from(package: str) -> Callable[[str], Callable[[], Any]]:
    """Loaders of what a package has: of `module:name`, which is imported when it is loaded."""
    return lambda place: lambda: pkgutil.resolve_name(f"{package}.{place}")


@dataclass(frozen=True)
class Plugin:
    """What a package adds."""

    name: str
    about: str
    """One line, for `stillhouse plugins`."""
    parts: tuple[Part, ...] = ()
    folder: Path | None = None
    """The folder of the package, if it has recipes (`recipes/*.toml`)."""
    extra: str = ""
    """The extra of Stillhouse with its requirements."""
    origin: str = ""
    """Distribution and version; "" for ours. Set when the plugin is found."""
    module: str = ""
    """The module of its entry point; "" for ours. Set when the plugin is found."""


def list_plugins() -> tuple[Plugin, ...]:
    """All plugins that can be imported, ours first. The others are in `list_faults`."""
    return tuple(found for found in _list_declarations() if isinstance(found, Plugin))


def find_plugin(name: str) -> Plugin:
    """The plugin of this name. Raises UnusablePlugin with the known ones."""
    for plugin in list_plugins():
        if plugin.name == name:
            return plugin
    known = [plugin.name for plugin in list_plugins()]
    raise UnusablePlugin(f"unknown plugin {name!r}; {suggest_name(name, known, 'known are')}{describe_faults()}")


def list_faults() -> tuple[UnusablePlugin, ...]:
    """Why plugins are left out."""
    return tuple(found for found in _list_declarations() if isinstance(found, UnusablePlugin))


def describe_faults() -> str:
    """Why installed plugins are left out, for the message about an unknown name; "" if none is."""
    return "".join(f"; {fault}" for fault in list_faults())


def _list_declarations() -> tuple[Plugin | UnusablePlugin, ...]:
    """All declarations. They are read once, and again when a package was added to the folders of `sys.path` or removed."""
    return _read_declarations(tuple((folder, _read_change(folder)) for folder in (*sys.path, str(FOLDER))))


@functools.lru_cache(maxsize=1)
def _read_declarations(_folders: tuple[tuple[str, int], ...]) -> tuple[Plugin | UnusablePlugin, ...]:
    found = [_read_own(file.parent.name) for file in sorted(FOLDER.glob("*/__init__.py"))]
    installed: dict[
        tuple[str, str], Plugin | UnusablePlugin
    ] = {}  # a path that is listed twice has each entry point twice
    for point in entry_points(group=GROUP):
        origin = f"{point.dist.name} {point.dist.version}" if point.dist else point.module
        installed.setdefault((point.name, origin), _read_declaration(point.load, point.name, origin, point.module))
    return (*found, *installed.values())


def _read_own(name: str) -> Plugin | UnusablePlugin:
    return _read_declaration(lambda: importlib.import_module(f"{PACKAGE}.{name}").PLUGIN, name)


def _read_declaration(
    load: Callable[[], Any], name: str, origin: str = "", module: str = ""
) -> Plugin | UnusablePlugin:
    title = f"the plugin {name!r}" + (f" of {origin}" if origin else "")
    try:
        plugin = load()
    except (Exception, SystemExit) as error:
        return UnusablePlugin(f"{title} cannot be imported: {type(error).__name__}: {error}; repair or uninstall it")
    if not isinstance(plugin, Plugin):
        return UnusablePlugin(f"{title}: its entry point is {type(plugin).__name__}, not a `stillhouse.Plugin`")
    if plugin.name != name:
        return UnusablePlugin(f"{title} calls itself {plugin.name!r}; entry point and plugin must have the same name")
    return replace(plugin, origin=origin, module=module)


def _read_change(folder: str) -> int:
    """When a file was added to a folder or removed from it, in nanoseconds; 0 for a path that is not a folder."""
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return 0


def iterate_parts(kind: PartKind) -> Iterator[tuple[Plugin, Part]]:
    for plugin in list_plugins():
        for part in plugin.parts:
            if part.kind == kind:
                yield plugin, part


def list_offered_names(kind: PartKind) -> list[str]:
    return [part.name for _, part in iterate_parts(kind)]


def find_part(kind: PartKind, name: str) -> tuple[Plugin, Part] | None:
    """The part of this name. Raises UnusablePlugin if two plugins offer it."""
    found = [(plugin, part) for plugin, part in iterate_parts(kind) if part.name == name]
    if len(found) > 1:
        offers = " and ".join(sorted(plugin.origin or f"the plugin {plugin.name!r}" for plugin, _ in found))
        raise UnusablePlugin(f"{offers} both offer a {kind} {name!r}; uninstall one of them")
    return found[0] if found else None


def load_part(kind: PartKind, name: str) -> Any:
    """Import a part. Raises UnusablePlugin if there is none of this name, or it cannot be imported."""
    if (found := find_part(kind, name)) is None:
        known = ", ".join(list_offered_names(kind)) or "none"
        raise UnusablePlugin(f"unknown {kind} {name!r}; known are {known}{describe_faults()}")
    return import_part(*found)


def load_part_of(plugin: str, kind: PartKind, name: str, purpose: str) -> Any:
    """As `load_part`, of a plugin of ours. Raises UnusablePlugin that `purpose` needs it, if it is not installed."""
    if (found := find_part(kind, name)) is None:
        raise UnusablePlugin(f"{purpose}: needs the plugin `{plugin}`, which is not installed here{describe_faults()}")
    return import_part(*found)


def import_part(plugin: Plugin, part: Part) -> Any:
    """The part of a plugin. Raises UnusablePlugin, with the command that installs what is missing, if it cannot be imported."""
    from core.installation import explain_missing_packages, format_install_command

    title = f"the {part.kind} {part.name!r} of {plugin.origin or f'the plugin {plugin.name!r}'}"
    try:
        with explain_missing_packages():
            return part.load()
    except UsageError:
        raise
    except ImportError as error:
        remedy = format_install_command(plugin.extra) if plugin.extra else "repair or uninstall the package"
        raise UnusablePlugin(f"{title} cannot be imported: {type(error).__name__}: {error}; {remedy}") from None
    except (Exception, SystemExit) as error:
        fault = f"{type(error).__name__}: {error}"
        raise UnusablePlugin(f"{title} cannot be imported: {fault}; repair or uninstall the package") from None


def locate_data(place: Path, plugin: str) -> Path:
    """The folder in which a plugin stores data of a run (a folder) or next to a dataset's file. It is written at any time, so no
    hash of it is recorded, and no reader takes it for rows. While it exists, the plugin's hooks are active for the run or file.
    """
    return _locate_all_data(place) / plugin


def _locate_all_data(place: Path) -> Path:
    return place / DATA if place.is_dir() else place.with_name(f"{place.name}.{DATA}")


def is_plugin_data(name: str) -> bool:
    """Whether the folder of this name next to a dataset's file has data of plugins."""
    return name.endswith(f".{DATA}")


def find_data_owner(file: Path) -> Any:
    """The hooks of the plugin that wrote a file of its data; None for another file."""
    return _load_hooks_of(file.parent.name) if file.parent.parent.name.endswith(DATA) else None


def load_hooks(names: Iterable[str], place: Path | None = None, *, strict: bool = False) -> list[Any]:
    """The hooks (`core.hooks.RunHooks`) of the plugins `names`, of a recipe and its records, and of those with data at `place`.

    Raises:
        UnusablePlugin: with `strict`, if one of them is not installed: what it decided would be lost silently.
    """
    folder = _locate_all_data(place) if place else None
    stored = sorted(one.name for one in folder.iterdir() if one.is_dir()) if folder and folder.is_dir() else []
    used = dict.fromkeys([*names, *stored])
    missing = sorted(used.keys() - {plugin.name for plugin in list_plugins()})
    if strict and missing:
        data = f" ({locate_data(place, missing[0])})" if place else ""
        raise UnusablePlugin(
            f"{place or ''}: uses the plugin {missing[0]!r}, which is not installed here; install it, or remove its data{data}"
            + describe_faults()
        )
    return [hooks for name in used if (hooks := _load_hooks_of(name))]


def _load_hooks_of(plugin: str) -> Any:
    return next((import_part(owner, part) for owner, part in iterate_parts("hooks") if owner.name == plugin), None)
