"""What the Prefect server does for our deployments by itself: a run whose process died goes on, a refused release is told.

`prefect.yaml` can say when a deployment starts; these act on a flow run that is there, or on people.
"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from prefect.automations import AutomationCore, EventTrigger, Posture, ResourceSpecification
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification

RELEASED = "stillhouse.release.made"
REFUSED = "stillhouse.release.refused"
NOT_MET = "GateNotMet"
"""The name of the state of a release that was refused."""

SILENT = timedelta(seconds=90)
"""Three heartbeats (`PREFECT_FLOWS_HEARTBEAT_FREQUENCY` in prefect.yaml). A run that is marked by mistake, after a pause of the
server, say, loses nothing: the process that takes it over finds it locked and goes away."""
DEAD = timedelta(seconds=30)
"""A crashed run is begun again after so long: Prefect's worker reports a crash twice, seconds apart, and the second report
would end what had begun meanwhile."""
CRASHES, DAY = 4, timedelta(days=1)
"""So many crashes of a flow run within so long, and it is not begun again: it would crash as often as it is."""

OURS = ResourceSpecification({"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.stillhouse"})
ANY_RUN = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
HEARTBEAT, TOO_OFTEN = "heartbeat", "CrashedTooOften"
ENDED = ("Completed", "Failed", NOT_MET, TOO_OFTEN, "Cancelling", "Cancelled")
WAITING = ("Scheduled", "AwaitingRetry", "Paused", "Suspended")


def lost() -> AutomationCore:
    """A flow run that says Running, but whose process is silent: its machine or its worker died with it."""
    return AutomationCore(
        name="stillhouse: a run that went silent has crashed",
        description=f"No heartbeat for {SILENT.seconds} seconds: nobody is left to say that it died.",
        trigger=_missing((HEARTBEAT,), (HEARTBEAT, "Crashed", *ENDED, *WAITING), SILENT),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"no heartbeat for {SILENT.seconds} seconds")],
    )


def take_over() -> AutomationCore:
    """A flow run that crashed: the next worker goes on with the same one, and with its run's directory."""
    return AutomationCore(
        name="stillhouse: a run that crashed is taken over",
        description=f"Begun again after {DEAD.seconds} seconds by any worker of its pool.",
        trigger=_missing(("Crashed",), ("Pending", "Submitting", "Running", *ENDED, *WAITING), DEAD),
        actions=[
            ChangeFlowRunState(
                state=StateType.SCHEDULED,
                name="AwaitingRetry",
                message="its process died; the next worker goes on with it",
            )
        ],
    )


def give_up() -> AutomationCore:
    """A flow run that crashes again and again is left alone."""
    message = f"crashed {CRASHES} times within a day; its log, or that of its worker, says why; Retry begins it again"
    return AutomationCore(
        name="stillhouse: a run that crashes again and again has failed",
        description=f"{CRASHES} crashes within a day.",
        trigger=EventTrigger(
            expect=_events("Crashed"),
            match=ANY_RUN,
            match_related=OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=CRASHES,
            within=DAY,
        ),
        actions=[ChangeFlowRunState(state=StateType.FAILED, name=TOO_OFTEN, message=message)],
    )


def _missing(after: Sequence[str], expect: Sequence[str], within: timedelta) -> EventTrigger:
    """Fires for a flow run of ours that had one of the events `after`, and none of `expect` for so long since."""
    return EventTrigger(
        after=_events(*after),
        expect=_events(*expect),
        match=ANY_RUN,
        match_related=OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=within,
    )


def _events(*names: str) -> set[str]:
    return {f"prefect.flow-run.{name}" for name in names}


def tell_refused(block: UUID) -> AutomationCore:
    """A release that was refused is told through a notification block."""
    return AutomationCore(
        name="stillhouse: a refused release is told",
        description="Through the block named by `stillhouse deploy --notify`.",
        trigger=EventTrigger(
            expect={REFUSED},
            match=ResourceSpecification({"prefect.resource.id": "stillhouse.recipe.*"}),
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject="stillhouse: {{ event.payload.recipe }} is not released",
                body="{{ event.payload.why }}",
            )
        ],
    )


def automate(block: UUID | None) -> list[str]:
    """Make them, or change in place those that are there; their names. One that was switched off stays so. Without a
    notification block, whoever was told before of a refused release still is.
    """
    made = [lost(), take_over(), give_up(), *([tell_refused(block)] if block else [])]
    with get_client(sync_client=True) as client:
        for automation in made:
            if found := client.read_automations_by_name(automation.name):
                automation.enabled = found[0].enabled
                client.update_automation(found[0].id, automation)
            else:
                client.create_automation(automation)
    return [automation.name for automation in made]
