"""Stillhouse for other programs: commands as tools of the Model Context Protocol within limits of the user, a skill for coding
agents, recipes as environments for reinforcement learning, chat logs as rows. The package `agents` is about others: those that
make samples.
"""

from typing import Any

from core.plugins import Part, Plugin


def _load_commands() -> Any:
    from plugins.interop.commands import app

    return app


def _load_answer_scorer() -> Any:
    from plugins.interop.answer_scoring import load_answer_scorer

    return load_answer_scorer


def _load_answer_tasks() -> Any:
    from plugins.interop.answer_scoring import read_answer_tasks

    return read_answer_tasks


def _load_answer_task() -> Any:
    from plugins.interop.answer_scoring import AnswerTask

    return AnswerTask


PLUGIN = Plugin(
    name="interop",
    about="For other programs: tools of the Model Context Protocol, a skill, environments for RL, chat logs",
    extra="interop",
    parts=(
        Part("command", "mcp", _load_commands),
        Part("command", "skill", _load_commands),
        Part("command", "export-env", _load_commands),
        Part("command", "import", _load_commands),
        Part("function", "load_answer_scorer", _load_answer_scorer),
        Part("function", "read_answer_tasks", _load_answer_tasks),
        Part("function", "AnswerTask", _load_answer_task),
    ),
)
