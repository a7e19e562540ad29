"""`stillhouse checks`."""

from typing import Annotated

import typer

from core.errors import UsageError
from flows.commands.command_options import MAKE_PANEL, JsonOption, print_json, print_text

app = typer.Typer()


@app.command("checks", rich_help_panel=MAKE_PANEL)
def checks_command(
    language: Annotated[
        str | None, typer.Option("--language", metavar="CODE", help="Only what can judge this language, such as de.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """List all checks and filters, with the languages that each can judge."""
    from plugins.languages.codes import NAMES, name_languages
    from plugins.languages.judged import list_judges

    if language not in (None, *NAMES):
        raise UsageError(f"--language {language}: unknown; choose one of {', '.join(NAMES)}")
    judges = [one for one in list_judges() if not (language and one.languages) or language in one.languages]
    if as_json:
        print_json({"judges": [one._asdict() for one in judges]})
        return
    for kind in ("check", "filter"):
        print_text(f"{kind}s")
        for one in judges:
            if one.kind == kind:
                family = f" of {one.family}" if one.family else ""
                print_text(f"  {one.name + family:<44} {name_languages(one.languages)}")
