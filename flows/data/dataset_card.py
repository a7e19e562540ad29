"""The dataset card: the README.md of a dataset, as the Hugging Face hub and `datasets` read it.

Text from teachers and recipes is untrusted: inside tables and lists it loses its markup.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.config.recipe import Recipe
from core.config.teachers import find_student_release
from core.hub_reference import find_hub_reference
from core.plugins import load_hooks
from core.runs.records import FormatRecord, RunManifest
from core.runs.releases import LineageRecord
from core.weights.packaged_weights import EMBEDDED_TEACHER, TEACHER_WEIGHTS
from flows.data.dataset_formats import COLUMN_MEANINGS
from flows.terminal.run_summary import summarize_run
from flows.terminal.text_format import create_environment

FORM_DESCRIPTIONS = {
    "messages": "conversations, as chat models are trained on",
    "prompt_completion": "conversations up to their last question, and the answer to it",
    "preference": "pairs of answers to one prompt, one better than the other",
    "alpaca": "question and answer, with the turns before as history",
    "sharegpt": "conversations, with the older names of the roles",
}
TEMPLATES = Path(__file__).with_name("templates")
SIZE_BOUNDS = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
"""The bounds of the hub's size categories, each ten times the one before."""


def build_dataset_card(
    manifest: RunManifest, recipe: Recipe, train: int, validation: int, release: LineageRecord | None = None
) -> str:
    """The card's text. `train` and `validation` count kept conversations, not rows of a form. With `release`, the card of a whole
    release, whose dataset is in the folder `dataset`; otherwise of the dataset's own folder.
    """
    summary, hooks = summarize_run(manifest, recipe), load_hooks(manifest.plugins)
    forms = manifest.dataset.formats
    text = create_environment(TEMPLATES).get_template("dataset_card.md").render(
        m=manifest,
        s=summary,
        recipe=recipe,
        train=train,
        validation=validation,
        size=find_size_category(max([train + validation, *(form.train + form.validation for form in forms)])),
        columns={name: COLUMN_MEANINGS[name] for form in forms for name in form.columns},
        form_words=FORM_DESCRIPTIONS,
        configs=_build_hub_configs(forms, "dataset/" if release else ""),
        terms=[describe_teacher_terms(model) for model in summary.teachers],
        license_fields=build_license_fields(manifest.dataset.license),
        release=release,
        checked=bool(recipe.verifiers) and recipe.topology.kind == "centralized",
        sections=[section for one in hooks for section in one.render_card(manifest)],
        people="; ".join(filter(None, (one.describe_people(manifest) for one in hooks))),
    )  # fmt: skip
    return f"{text}\n"


def _build_hub_configs(formats: Sequence[FormatRecord], base: str = "") -> list[dict[str, Any]]:
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


# Licences and terms of teachers, as far as their names say which apply. Gives no advice: the publisher must read them

PROVIDER_TERMS = {
    "openai": ("OpenAI, or the operator of its endpoint", "https://openai.com/policies/services-agreement/"),
    "anthropic": ("Anthropic", "https://www.anthropic.com/legal/commercial-terms"),
    "gemini": ("Google", "https://ai.google.dev/gemini-api/terms"),
}
"""By provider: whose terms apply, and where they are."""
RESTRICTION = "its terms may restrict the use of its answers, especially for training other models"


class TeacherTerms(NamedTuple):
    """What is known of the licence of a model, and of the terms for its answers."""

    model: str
    """`provider/model`, as in the recipe."""
    supplier: str
    license: str | None
    """SPDX identifier of the licence of its weights, if it is known."""
    sentence: str
    """One sentence without a full stop."""
    url: str | None


def describe_teacher_terms(model: str) -> TeacherTerms:
    """The terms of a teacher of the recipe, by its name."""
    provider, _, name = model.partition("/")
    if provider == "fake":
        return TeacherTerms(model, "Stillhouse", "Apache-2.0", "a scripted program for tests, no model", None)
    if model == f"local/{EMBEDDED_TEACHER}":
        return TeacherTerms(
            model, "Hugging Face", TEACHER_WEIGHTS.licence,
            f"SmolLM2-135M-Instruct, whose weights are under {TEACHER_WEIGHTS.licence}; that licence does not cover the text "
            "that the model writes", "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        )  # fmt: skip
    if release := find_student_release(model):
        return TeacherTerms(
            model, "the publisher", None, f"the student of the release {release}, whose own teachers' terms apply", None
        )
    if reference := find_hub_reference(model):
        owner, url = reference.repo.partition("/")[0], f"https://huggingface.co/{reference.repo}"
        return TeacherTerms(model, owner, None, "the licence of its weights is on its page", url)
    if provider in PROVIDER_TERMS:
        supplier, url = PROVIDER_TERMS[provider]
        return TeacherTerms(model, supplier, None, f"{supplier}: {RESTRICTION}", url)
    if provider == "vllm" and name.count("/") == 1 and not name.startswith((".", "/")):
        owner, url = name.partition("/")[0], f"https://huggingface.co/{name}"
        return TeacherTerms(model, owner, None, "the licence of its weights is on its page", url)
    return TeacherTerms(model, "unknown", None, f"unknown supplier: {RESTRICTION}", None)
