"""The command that lists plugins."""

from typing import Annotated

import typer

from flows.commands.command_options import TRY_PANEL, JsonOption, print_json, print_text

app = typer.Typer()


@app.command("plugins", rich_help_panel=TRY_PANEL)
def plugins_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One plugin, with its recipe keys.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the installed plugins: what each adds, where it comes from, and what it lacks here."""
    from core.installation import format_install_command, list_missing_packages
    from core.plugins import Plugin, find_plugin, list_faults, list_plugins

    def describe(plugin: Plugin) -> dict[str, object]:
        missing = list_missing_packages(plugin.extra) if plugin.extra else []
        parts: dict[str, list[str]] = {}
        for part in plugin.parts:
            parts.setdefault(part.kind, []).append(part.name)
        origin, install = plugin.origin or "stillhouse", format_install_command(plugin.extra) if missing else ""
        return {"name": plugin.name, "about": plugin.about, "origin": origin, "parts": parts, "install": install}

    described = [describe(find_plugin(name))] if name else [describe(plugin) for plugin in list_plugins()]
    faults = [] if name else [str(fault) for fault in list_faults()]
    if as_json:
        print_json({"plugins": described, "faults": faults})
        return
    for plugin in described:
        state = f"needs {plugin['install']}" if plugin["install"] else "ready"
        print_text(f"{plugin['name']}  {plugin['about']}\n  {plugin['origin']}, {state}")
        print_text("\n".join(f"  {kind}: {', '.join(names)}" for kind, names in plugin["parts"].items()))  # type: ignore[attr-defined]
    for fault in faults:
        print_text(f"left out: {fault}")
    if name:
        from flows.recipes.recipe_reference import build_plugin_reference

        print_text(build_plugin_reference(find_plugin(name)))
