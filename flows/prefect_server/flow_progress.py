"""A running flow run on Prefect's page: publishes its progress, and pauses on request. Its artifacts are published
at the end. Long silent work adds a line to the log.

Works every few seconds, never per sample. An error of Prefect's client never fails the run.
"""

import asyncio
import contextvars
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Pause
from prefect.runtime import deployment, flow_run
from prefect.states import Crashed

from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.storage.background_work import repeat_in_background
from flows.terminal.console import SESSION, UserInterrupt
from flows.terminal.run_summary import format_run_card
from flows.terminal.text_format import format_number, locate_metric

logger = logging.getLogger("stillhouse")

UPDATE_SECONDS = 4.0
UNENDED_STATES = TaskRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING])


@asynccontextmanager
async def report_flow_progress(recipe: str) -> AsyncIterator[None]:
    """Around the body of a flow run.

    Raises:
        Pause: if the page asked for a pause, once work in flight is stored. The process ends; Resume starts another.
    """
    if deployment.id:
        await _end_lost_tasks()
    watch = _FlowProgressReporter(f"{build_artifact_key(recipe)}-progress")
    watching = asyncio.create_task(watch.run())
    context = contextvars.copy_context()  # connects log lines with the flow run

    def say_if_silent() -> bool:
        context.run(SESSION.say_if_silent)
        return True

    try:
        with repeat_in_background(UPDATE_SECONDS, say_if_silent):
            yield
    except UserInterrupt:
        if watch.paused:
            raise Pause(state=watch.paused) from None
        raise
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        with suppress(TimeoutError):
            await asyncio.wait_for(watch.update(), UPDATE_SECONDS)


async def _end_lost_tasks() -> None:
    """Mark the tasks that an earlier process of this flow run left running as crashed, since nobody else does."""
    try:
        async with get_client() as client:
            lost = await client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(str(flow_run.id))])),
                task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=UNENDED_STATES)),
            )
            for task in lost:
                await client.set_task_run_state(task.id, Crashed(message="its process died"), force=True)
    except Exception as error:  # any error of Prefect's client
        logger.warning("Prefect shows tasks of an earlier process as running: %s", error)


class _FlowProgressReporter:
    def __init__(self, key: str) -> None:
        self.paused: State | None = None
        self._key = key
        self._artifact: UUID | None = None
        self._text = ""
        self._failed = False

    async def run(self) -> None:
        while True:
            await asyncio.sleep(UPDATE_SECONDS)
            await self.update()

    async def update(self) -> None:
        """Publish the newest progress line, with the share as a bar, and see whether the page asked for a pause."""
        try:
            if SESSION.progress is not None and (text := SESSION.progress.message()) != self._text:
                percent = round(100 * SESSION.progress.share(), 1)
                if self._artifact:
                    await aupdate_progress_artifact(self._artifact, percent, description=text)
                else:
                    self._artifact = await acreate_progress_artifact(percent, key=self._key, description=text)
                self._text = text
            if deployment.id and not self.paused:
                async with get_client() as client:
                    current = await client.read_flow_run(UUID(str(flow_run.id)))
                if current.state and current.state.is_paused():
                    self.paused = current.state
                    SESSION.stop.set()
        except Exception as error:  # any error of Prefect's client
            if not self._failed:
                logger.warning("Prefect does not get the run's progress: %s", error)
            self._failed = True


async def publish_artifacts(run: RunDir, manifest: RunManifest, recipe: str) -> None:
    """Publish the artifacts, keyed by the recipe so that Prefect groups its runs. If the server rejects one, only a warning is
    logged: the run's directory is authoritative.
    """
    key = build_artifact_key(recipe)
    try:
        await acreate_markdown_artifact(
            f"```\n{format_run_card(manifest, run)}\n```", key=f"{key}-card", description=f"Run {manifest.run}"
        )
        if collapse := manifest.collapse:
            await acreate_table_artifact(
                [
                    {
                        "metric": metric.name,
                        "this run": format_number(metric.candidate),
                        "real text" if collapse.reference else "in random order": format_number(metric.reference),
                        "real range" if collapse.reference else "limits": (
                            f"{format_number(metric.low)} to {format_number(metric.high)}"
                        ),
                        "place": locate_metric(metric),
                    }
                    for metric in collapse.metrics
                ],
                key=f"{key}-collapse", description=f"Verdict: {collapse.headline}",
            )  # fmt: skip
    except Exception as error:  # any error of Prefect's client
        logger.warning("Prefect did not store the artifacts of %s: %s", manifest.run, error)


def build_artifact_key(recipe: str) -> str:
    """The beginning of an artifact's key, in the characters that Prefect allows."""
    return re.sub(r"[^a-z0-9]+", "-", recipe.lower()).strip("-")
