"""Packages with plugins, as pip would leave them."""

from pathlib import Path

DECLARATION = """from importlib import import_module
from stillhouse import Part, Plugin

PLUGIN = Plugin({0!r}, "One part.", (Part({1!r}, {2!r}, lambda: getattr(import_module({3!r}), {4!r})),))
"""


def install_plugin(
    site: Path, distribution: str, code: str, part: tuple[str, str, str], version: str = "1.0", *, entry_point: str = ""
) -> None:
    """A package of one module and a declaration of one part: its kind, its name, and `module:attribute`."""
    kind, name, value = part
    module, _, attribute = value.partition(":")
    write_metadata(site, distribution, f"{entry_point or distribution} = {distribution}_plugin:PLUGIN", version)
    (site / f"{distribution}.py").write_text(code)
    (site / f"{distribution}_plugin.py").write_text(DECLARATION.format(distribution, kind, name, module, attribute))


def write_metadata(site: Path, distribution: str, entry_point: str, version: str = "1.0") -> None:
    metadata = site / f"{distribution}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(f"[stillhouse.plugins]\n{entry_point}\n")
