"""Licences and terms of the models that write a dataset, as far as their names say which apply. Asks no network and gives no
advice: the publisher must read the terms.
"""

from typing import NamedTuple

from core.config.teachers import find_student_release
from core.hub_reference import find_hub_reference
from core.weights.packaged_weights import EMBEDDED_TEACHER, TEACHER_WEIGHTS

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
