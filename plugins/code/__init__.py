"""Programming tasks whose solutions pass tests that can fail, in the sandbox."""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="code",
    about="Programming tasks whose solutions pass tests that can fail",
    folder=Path(__file__).parent,
    parts=(
        Part("family", "code", part("family:CodeFamily")),
        Part("script", "code", part("script:SCRIPT")),
        Part("check", "code", part("checks.tested_solution:code_check")),
        Part("check", "solved_again", part("checks.tested_solution:solved_again_check")),
        Part("reference", "python", part("standard_library:load_standard_library")),
    ),
)
