"""The dataset card: the README.md of a dataset, as the Hugging Face hub and `datasets` read it.

Text from teachers and recipes is untrusted: inside tables and lists it loses its markup.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.config.agents import AgentConfig
from core.config.recipe import Recipe
from core.plugins import load_hooks
from core.runs.records import DRAWN_BY_SEED, FormatRecord, RunManifest
from core.runs.releases import LineageRecord
from flows.data.dataset_formats import COLUMN_MEANINGS
from flows.data.teacher_terms import describe_teacher_terms
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


def list_active_teachers(manifest: RunManifest, recipe: Recipe) -> dict[str, list[str]]:
    """The models that wrote or judged something, each with its roles."""
    agents = recipe.agents
    judged = agents.critic and agents.critic.type == "teacher" and recipe.topology.kind in CRITIC_TOPOLOGIES
    active: dict[str, AgentConfig | None] = {
        "generator": agents.generator if manifest.generator != DRAWN_BY_SEED else None,
        "critic": agents.critic if judged else None,
        "verifier": agents.verifier if any(check.asks for check in manifest.checks) else None,
        "solver": recipe.difficulty.build_agent(agents.generator) if recipe.difficulty else None,
    }
    teachers: dict[str, list[str]] = {}
    for role, agent in active.items():
        if agent:
            teachers.setdefault(recipe.teachers[agent.teacher].model, []).append(role)
    return teachers


def build_dataset_card(
    manifest: RunManifest, recipe: Recipe, train: int, validation: int, release: LineageRecord | None = None
) -> str:
    """The card's text. `train` and `validation` count kept conversations, not rows of a form. With `release`, the card of a whole
    release, whose dataset is in the folder `dataset`; otherwise of the dataset's own folder.
    """
    checked = bool(recipe.verifiers) and recipe.topology.kind == "centralized"
    teachers = list_active_teachers(manifest, recipe)
    verifiers = [(check.type, check.about[:1].lower() + check.about[1:].rstrip(".")) for check in manifest.checks]
    hooks = load_hooks(manifest.plugins)
    filters = []
    for config in recipe.filters:
        options = {key: value for key, value in config.model_dump().items() if key != "type" and value is not None}
        filters.append(
            (config.type, config.about, ", ".join(f"{key} {hide_folder(str(value))}" for key, value in options.items()))
        )
    text = (
        create_card_environment()
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
            configs=build_hub_configs(manifest.formats, "dataset/" if release else ""),
            teachers=teachers,
            terms=[describe_teacher_terms(model) for model in teachers],
            license_fields=build_license_fields(manifest.license),
            release=release,
            checked=checked,
            verifiers=verifiers if checked else [],
            filters=filters,
            metrics=manifest.collapse.metrics if manifest.collapse else [],
            sections=[section for one in hooks for section in one.render_card(manifest)],
            people="; ".join(filter(None, (one.describe_people(manifest) for one in hooks))),
        )
    )
    return text + "\n"


def build_hub_configs(formats: Sequence[FormatRecord], base: str = "") -> list[dict[str, Any]]:
    """The files of each form, as `datasets` reads them from the card, in the folder `base` (empty, or with a slash). A split
    without rows is left out: `datasets` cannot load it.
    """
    configs = []
    for number, form in enumerate(formats):
        folder = f"{base}{form.name}/" if number else base
        sides = {"train": form.train, "validation": form.validation}
        files = [{"split": side, "path": f"{folder}{side}.parquet"} for side, rows in sides.items() if rows]
        if files:
            configs.append({"config_name": form.name, **({} if number else {"default": True}), "data_files": files})
    return configs


HUB_LICENSES = frozenset(
    "agpl-3.0 apache-2.0 bsd-2-clause bsd-3-clause cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 "
    "cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 "
    "cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 gpl-3.0 isc lgpl-3.0 mit mpl-2.0 odbl "
    "odc-by pddl unlicense".split()
)
"""Licences by the names of the Hub (https://huggingface.co/docs/hub/repositories-licenses)."""
HUB_NAMES = {"ODC-By-1.0": "odc-by", "PDDL-1.0": "pddl", "ODbL-1.0": "odbl"}
"""SPDX identifiers whose name on the Hub is not just lower case."""


def build_license_fields(license_name: str | None) -> dict[str, str]:
    """The fields of the card's header, as the Hub reads them. Empty without a licence."""
    if license_name is None:
        return {}
    hub_name = HUB_NAMES.get(license_name, re.sub(r"-(?:only|or-later)$", "", license_name).lower())
    if hub_name in HUB_LICENSES:
        return {"license": hub_name}
    if license_name.startswith("https://"):
        return {"license": "other", "license_name": "other", "license_link": license_name}
    return {"license": "other", "license_name": license_name.lower()}


def find_size_category(rows: int) -> str:
    """The hub's name for a dataset of this many rows."""
    number = sum(rows >= 10 ** (3 + i) for i in range(len(SIZE_BOUNDS)))
    if number == 0:
        return "n<1K"
    return f"{SIZE_BOUNDS[number - 1]}<n<{SIZE_BOUNDS[number]}" if number < len(SIZE_BOUNDS) else "n>1B"


def hide_folder(text: str) -> str:
    """The file's name of an absolute path, whose folders are those of a private machine; any other text unchanged."""
    return Path(text).name if Path(text).is_absolute() else text


def create_markdown_environment(templates: Path, *filters: Callable[..., str]) -> Environment:
    """Of the Markdown templates in a folder, with `filters` by their names. Text of models cannot end a table or a line."""
    environment = Environment(
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: replace_unsafe_characters(value) if type(value) is str else value,
    )
    environment.filters.update({one.__name__: one for one in filters})
    return environment


@cache
def create_card_environment() -> Environment:
    return create_markdown_environment(
        Path(__file__).with_name("templates"), escape_cell, format_count, format_judge_record, format_number, format_percent,
        format_time, hide_folder, locate_metric,
    )  # fmt: skip


def escape_cell(text: str) -> str:
    """`text` inside a Markdown table or list: one line, no markup, no table borders."""
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", format_one_line(text, 400))
