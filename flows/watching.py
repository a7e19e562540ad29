"""A flow run and Prefect's page, while it goes on: the page is shown how far it is, and may ask it to pause.

Looks every few seconds, never for a sample; whatever Prefect's client meets is no matter of the run's.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import Pause
from prefect.runtime import deployment, flow_run

from flows.artifacts import key_of
from flows.session import SESSION, Interrupted

logger = logging.getLogger("stillhouse")

SECONDS = 4.0


@asynccontextmanager
async def watched(recipe: str) -> AsyncIterator[None]:
    """Around the body of a flow run.

    Raises:
        Pause: if the page asked for it, once what was in flight is stored: the process ends, and Resume begins another.
    """
    watch = _Watch(f"{key_of(recipe)}-progress")
    watching = asyncio.create_task(watch.go_on())
    try:
        yield
    except Interrupted:
        if watch.paused:
            raise Pause(state=watch.paused) from None
        raise
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        with suppress(TimeoutError):
            await asyncio.wait_for(watch.look(), SECONDS)


class _Watch:
    def __init__(self, key: str) -> None:
        self.paused: State | None = None
        self._key = key
        self._artifact: UUID | None = None
        self._text = ""
        self._failed = False

    async def go_on(self) -> None:
        while True:
            await asyncio.sleep(SECONDS)
            await self.look()

    async def look(self) -> None:
        try:
            await self._show()
            if deployment.id and not self.paused:
                await self._obey()
        except Exception as error:  # whatever Prefect's client meets
            if not self._failed:
                logger.warning("Prefect is not told how far the run is: %s", error)
            self._failed = True

    async def _show(self) -> None:
        """The newest line about how far it is, with its share as a bar."""
        if SESSION.far is None or (text := SESSION.far.told()) == self._text:
            return
        percent = round(100 * SESSION.far.share(), 1)
        if self._artifact:
            await aupdate_progress_artifact(self._artifact, percent, description=text)
        else:
            self._artifact = await acreate_progress_artifact(percent, key=self._key, description=text)
        self._text = text

    async def _obey(self) -> None:
        async with get_client() as client:
            found = await client.read_flow_run(UUID(str(flow_run.id)))
        if found.state and found.state.is_paused():
            self.paused = found.state
            SESSION.stop.set()
