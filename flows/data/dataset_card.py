"""The dataset card: the README.md of a dataset, as the Hugging Face hub and `datasets` read it.

Text from teachers and recipes is untrusted: inside tables and lists it loses its markup.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.config.agents import AgentConfig
from core.config.recipe import Recipe
from core.runs.records import FormatRecord, RunManifest
from flows.data.dataset_formats import COLUMN_MEANINGS
from flows.terminal.run_summary import format_judge_record
from flows.terminal.text_format import (
    format_count,
    format_number,
    format_one_line,
    format_percent,
    format_time,
    locate_metric,
    replace_unsafe_characters,
)

FORM_DESCRIPTIONS = {
    "messages": "conversations, as chat models are trained on",
    "prompt_completion": "conversations up to their last question, and the answer to it",
    "preference": "pairs of answers to one prompt, one better than the other",
    "alpaca": "question and answer, with the turns before as history",
    "sharegpt": "conversations, with the older names of the roles",
}
CRITIC_TOPOLOGIES = ("centralized", "independent")
"""Topologies with a critic."""
SIZE_BOUNDS = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
"""The bounds of the hub's size categories, each ten times the one before."""


def build_dataset_card(manifest: RunManifest, recipe: Recipe, train: int, validation: int) -> str:
    """The card's text. `train` and `validation` count kept conversations, not rows of a form."""
    checked = bool(recipe.verifiers) and recipe.topology.kind == "centralized"

    # The agents of each model that wrote or judged something.
    agents = recipe.agents
    judged = agents.critic and agents.critic.type == "teacher" and recipe.topology.kind in CRITIC_TOPOLOGIES
    active: dict[str, AgentConfig | None] = {
        "generator": agents.generator,
        "critic": agents.critic if judged else None,
        "verifier": agents.verifier if any(check.asks for check in manifest.checks) else None,
        "solver": recipe.difficulty.build_agent(agents.generator) if recipe.difficulty else None,
    }
    teachers: dict[str, list[str]] = {}
    for role, agent in active.items():
        if agent:
            teachers.setdefault(recipe.teachers[agent.teacher].model, []).append(role)

    verifiers = [(check.type, check.about[:1].lower() + check.about[1:].rstrip(".")) for check in manifest.checks]
    filters = []
    for config in recipe.filters:
        options = {key: value for key, value in config.model_dump().items() if key != "type" and value is not None}
        filters.append((config.type, config.about, ", ".join(f"{key} {value}" for key, value in options.items())))
    text = (
        _create_card_environment()
        .get_template("dataset_card.md")
        .render(
            m=manifest,
            recipe=recipe,
            train=train,
            validation=validation,
            size=find_size_category(
                max([train + validation, *(form.train + form.validation for form in manifest.formats)])
            ),
            columns={name: COLUMN_MEANINGS[name] for form in manifest.formats for name in form.columns},
            form_words=FORM_DESCRIPTIONS,
            configs=build_hub_configs(manifest.formats),
            teachers=teachers,
            checked=checked,
            verifiers=verifiers if checked else [],
            filters=filters,
            metrics=manifest.collapse.metrics if manifest.collapse else [],
        )
    )
    return text + "\n"


def build_hub_configs(formats: Sequence[FormatRecord]) -> list[dict[str, Any]]:
    """The files of each form, as `datasets` reads them from the card. A split without rows is left out: `datasets` cannot load
    it.
    """
    configs = []
    for number, form in enumerate(formats):
        folder = f"{form.name}/" if number else ""
        sides = {"train": form.train, "validation": form.validation}
        files = [{"split": side, "path": f"{folder}{side}.parquet"} for side, rows in sides.items() if rows]
        if files:
            configs.append({"config_name": form.name, **({} if number else {"default": True}), "data_files": files})
    return configs


def find_size_category(rows: int) -> str:
    """The hub's name for a dataset of this many rows."""
    number = sum(rows >= 10 ** (3 + i) for i in range(len(SIZE_BOUNDS)))
    if number == 0:
        return "n<1K"
    return f"{SIZE_BOUNDS[number - 1]}<n<{SIZE_BOUNDS[number]}" if number < len(SIZE_BOUNDS) else "n>1B"


@cache
def _create_card_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: replace_unsafe_characters(value) if type(value) is str else value,
    )
    functions = (
        escape_cell, format_count, format_judge_record, format_number, format_percent, format_time, locate_metric
    )  # fmt: skip
    environment.filters.update({function.__name__: function for function in functions})
    return environment


def escape_cell(text: str) -> str:
    """`text` inside a Markdown table or list: one line, no markup, no table borders."""
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", format_one_line(text, 400))
