"""Probes a run's teachers before its first sample, and shows the verdicts in its summary, its lineage and on Prefect's page."""

import logging
from collections.abc import Sequence

from agents.calls.budget import BudgetExhausted
from agents.planning.run_plan import RunPlan
from core.errors import LimitReached, RecipeProblem, suggest_name
from core.hooks import RunHooks
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.sample import FrozenModel
from core.stop_signal import RunStopped, StopSignal
from core.storage.atomic_files import write_text
from flows.terminal.console import SESSION, UserInterrupt
from flows.terminal.text_format import replace_unsafe_characters
from plugins.drift.comparison import ALARMS, Verdict, compare_night
from plugins.drift.config import NAME, DriftConfig
from plugins.drift.fingerprint import Fingerprint, find_fingerprint, locate_fingerprint
from plugins.drift.measurement import ask_teacher, list_watched

logger = logging.getLogger("stillhouse")

CHANGED_EVENT = "stillhouse.teacher.changed"


class TeacherVerdict(FrozenModel):
    teacher: str
    model: str
    verdict: Verdict
    why: str
    kind: str
    """What was compared: log-probabilities or words."""
    degraded: tuple[str, ...] = ()
    """What the endpoint does to its log-probabilities."""
    level: float | None = None
    lowest: float | None = None
    calls: int = 0
    cost: float = 0.0

    def describe(self) -> str:
        notes = f"; log-probabilities are {' and '.join(self.degraded)}" if self.degraded else ""
        text = f"{self.teacher} ({self.model}) {self.verdict}: by {self.kind}, {self.why}{notes}"
        return replace_unsafe_characters(text)  # a name can be that of an earlier run, which somebody else made


class DriftRecord(FrozenModel):
    teachers: tuple[TeacherVerdict, ...]
    lineage: tuple[str, ...]
    """Lines of the lineage."""


class DriftHooks(RunHooks):
    def list_plan_problems(self, plan: RunPlan) -> Sequence[RecipeProblem]:
        config, known = plan.recipe.section(DriftConfig), list(plan.recipe.teachers)
        unknown = [name for name in config.teachers if name not in known] if config else []
        return [
            RecipeProblem("drift.teachers", f"{name!r}: {suggest_name(name, known, 'known are')}") for name in unknown
        ]

    async def begin_run(self, run: RunDir, plan: RunPlan, manifest: RunManifest) -> None:
        config = plan.recipe.section(DriftConfig)
        if config is None or config.on_drift == "off":
            return
        earlier = manifest.get(NAME, DriftRecord)
        found = {one.teacher: one for one in earlier.teachers} if earlier else {}
        for name in list_watched(plan, config.teachers):
            if (file := locate_fingerprint(run, name)).is_file():
                continue
            one, fingerprint = await _probe(run, plan, name)
            found[name] = one
            lines = tuple(f"teacher {verdict.describe()}" for verdict in found.values())
            record = DriftRecord(teachers=tuple(found.values()), lineage=lines)
            manifest.put(NAME, record)
            run.write_manifest(manifest)
            SESSION.print_unless_stopped(f"drift: {one.describe()}")
            await _publish(plan.recipe.name, run, record, one)
            if one.verdict == "changed" and config.on_drift == "refuse":  # no fingerprint for the next night
                raise LimitReached(
                    f"drift: {one.describe()}; to accept the changed teacher, continue with "
                    "--resume --set drift.on_drift=report"
                )
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, fingerprint.model_dump_json() + "\n")  # last, so that a killed process asks again

    def list_summary_lines(self, manifest: RunManifest) -> Sequence[tuple[str, str]]:
        record = manifest.get(NAME, DriftRecord)
        return [("drift", one.describe()) for one in record.teachers] if record else []


HOOKS = DriftHooks()


async def _probe(run: RunDir, plan: RunPlan, name: str) -> tuple[TeacherVerdict, Fingerprint]:
    SESSION.print_unless_stopped(f"drift: asking {name} the probes")
    try:
        night, spent = await ask_teacher(plan, run, name, StopSignal(SESSION.stop))
    except BudgetExhausted as error:
        raise LimitReached(
            f"{error} while asking {name} the probes; continue with --resume and a larger budget"
        ) from None
    except RunStopped:
        raise UserInterrupt from None
    found = compare_night(find_fingerprint(run, name), night)
    kind = "log-probabilities" if night.kind == "logprobs" else "words"
    verdict = TeacherVerdict(
        teacher=name, model=plan.recipe.teachers[name].model, verdict=found.verdict, why=found.why, kind=kind,
        degraded=tuple(night.degraded), level=found.level, lowest=found.lowest, calls=spent.calls, cost=spent.cost,
    )  # fmt: skip
    return verdict, found.fingerprint


async def _publish(recipe: str, run: RunDir, record: DriftRecord, found: TeacherVerdict) -> None:
    """All verdicts as an artifact of the flow run, and an event if this teacher changed. An error of the server stops no run."""
    from prefect.artifacts import acreate_markdown_artifact
    from prefect.events import emit_event

    from flows.prefect_server.flow_progress import build_artifact_key

    resource = {"prefect.resource.id": f"stillhouse.recipe.{recipe}", "prefect.resource.name": recipe}
    if found.verdict == "changed":
        payload = {"recipe": recipe, "run": run.name, "teacher": found.teacher, "why": found.why, "bound": ALARMS}
        emit_event(CHANGED_EVENT, resource, payload=payload)
    try:
        key = f"{build_artifact_key(recipe)}-{NAME}"
        text = "".join(f"- {line}\n" for line in record.lineage)
        await acreate_markdown_artifact(text, key=key, description=f"Teachers of run {run.name}")
    except Exception as error:  # any error of Prefect's client
        logger.warning("Prefect did not store the verdicts on the teachers of %s: %s", run.name, error)
