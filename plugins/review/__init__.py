"""People look at the samples of a run or the rows of a file on a local page, and keep, drop or correct them; `curate` and
`filter` apply what they decided.
"""

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="review",
    about="People keep, drop or correct samples on a local page",
    parts=(Part("command", "review", part("commands:app")), Part("hooks", "review", part("hooks:HOOKS"))),
)
