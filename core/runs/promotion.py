"""Promotion of a student to the generator of the next generation: its record, and the verification that must not weaken.

Knows no run directory and no release.
"""

from collections.abc import Mapping
from typing import Any

from core.config.recipe import Recipe
from core.config.teachers import TeacherConfig
from core.hub_reference import remove_revision
from core.runs.student_records import PairedComparison
from core.sample import FrozenModel


class VerificationRecord(FrozenModel):
    """Everything that decided, apart from filters, which samples were kept."""

    topology: str
    checks: tuple[dict[str, Any], ...]
    """The table of each check with every default, and the hashes of the files that it names."""
    critic: dict[str, Any] | None
    """Its table, with its model if that is a teacher."""
    judge: dict[str, Any] | None
    """The table `agents.verifier` with its model, if a check asks a teacher."""
    prompts: dict[str, str]
    """Hashes of the recipe's own prompts of critic and checks, by file."""

    def find_missing(self, now: "VerificationRecord") -> list[str]:
        """What of this record `now` lacks, a phrase each. More checks than before are allowed."""
        missing = [] if now.topology == self.topology else [f'topology.kind = "{self.topology}"']
        for check in self.checks:
            same = [other for other in now.checks if other["type"] == check["type"]]
            if not any(_list_changes(check, other) == [] for other in same):
                changes = min((_list_changes(check, other) for other in same), key=len, default=[])
                options = f" with {', '.join(changes)}" if changes else ""
                missing.append(f"the check {check['type']}{options}")
        for name, before, after in (
            ("agents.critic", self.critic, now.critic),
            ("agents.verifier", self.judge, now.judge),
        ):
            if before is not None and (after is None or _list_changes(before, after)):
                changed = f" with {', '.join(_list_changes(before, after))}" if after else ""
                missing.append(f"{name}{changed}")
        changed_prompts = {file for file, _ in self.prompts.items() ^ now.prompts.items()}
        return [*missing, *(f"the same prompt {file}" for file in sorted(changed_prompts))]


def _list_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys of `before` with another value in `after`, each with its value. Later versions may add keys."""
    return [f"{key} = {value!r}" for key, value in before.items() if key not in after or after[key] != value]


def describe_verification(
    recipe: Recipe, sources: Mapping[str, str], *, asks: bool, writing_prompts: frozenset[str]
) -> VerificationRecord:
    """The verification of a resolved recipe.

    Args:
        recipe: with the defaults of its family and checks.
        sources: hashes of its files, as in a run's identity.
        asks: whether one of its checks calls a teacher.
        writing_prompts: the roles whose prompts only write candidates.
    """
    checks = []
    for verifier in recipe.verifiers:
        table = verifier.model_dump(mode="json")
        files = {f"hash of {value}": sources[value] for value in table.values() if _is_source(value, sources)}
        checks.append({**table, **files})
    agents, critic = recipe.agents, None
    if agents.critic and agents.critic.type == "teacher":
        critic = {
            **agents.critic.model_dump(mode="json"),
            "model": identify_model(recipe.teachers[agents.critic.teacher]),
        }
    elif agents.critic:
        critic = {"type": agents.critic.type, "min_score": agents.critic.min_score}
    judge = None
    if asks:
        judge = {
            **agents.verifier.model_dump(mode="json"),
            "model": identify_model(recipe.teachers[agents.verifier.teacher]),
        }
    own = {
        name.removeprefix("prompts/own/"): digest for name, digest in sources.items() if name.startswith("prompts/own/")
    }
    prompts = {file: digest for file, digest in own.items() if file.removesuffix(".md") not in writing_prompts}
    return VerificationRecord(
        topology=recipe.topology.kind, checks=tuple(checks), critic=critic, judge=judge, prompts=prompts
    )


def _is_source(value: object, sources: Mapping[str, str]) -> bool:
    return isinstance(value, str) and value in sources


def identify_model(teacher: TeacherConfig) -> str:
    """A teacher's model without its commit on the Hub, and with its endpoint if it has one."""
    model = remove_revision(teacher.model)
    return f"{model} at {teacher.endpoint}" if teacher.endpoint else model


class PromotionRecord(FrozenModel):
    """Whether the student of a release writes the samples of the next generation, and why."""

    promoted: bool
    reasons: tuple[str, ...] = ()
    """Why not, a sentence each."""
    weights: str | None = None
    """SHA-256 of the released weights, if it is promoted."""
    generator: str
    """The model that the student was compared with."""
    replaces: str
    """The recipe's own generator. If a recipe names another one later, the promotion no longer holds."""
    comparison: PairedComparison | None
    """The student minus that model on held-out requests."""
    general: PairedComparison | None
    """The student minus its start on the general panel."""
    max_general_loss: float
    verification: VerificationRecord
    """Of the data that the student was trained on."""

    @property
    def general_loss(self) -> float | None:
        """Share of the panel's tasks that the student lost, compared with its start; None without a panel."""
        return None if self.general is None else 0.0 - self.general.difference.value
