"""Stillhouse for other programs: commands as tools of the Model Context Protocol within limits of the user, a skill for coding
agents, recipes as environments for reinforcement learning, chat logs as rows. The package `agents` is about others: those that
make samples.
"""

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="interop",
    about="For other programs: tools of the Model Context Protocol, a skill, environments for RL, chat logs",
    extra="interop",
    parts=(
        Part("command", "mcp", part("commands:app")),
        Part("command", "skill", part("commands:app")),
        Part("command", "export-env", part("commands:app")),
        Part("command", "import", part("commands:app")),
        Part("function", "load_answer_scorer", part("answer_scoring:load_answer_scorer")),
        Part("function", "read_answer_tasks", part("answer_scoring:read_answer_tasks")),
        Part("function", "AnswerTask", part("answer_scoring:AnswerTask")),
    ),
)
