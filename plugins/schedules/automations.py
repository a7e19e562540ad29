"""Automations of the Prefect server for our deployments: resume a run whose process died, report a refused release.

`prefect.yaml` schedules deployments. Automations react to existing flow runs and notify people.
"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from prefect.automations import AutomationCore, EventTrigger, Posture, ResourceSpecification
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification

RELEASE_MADE_EVENT = "stillhouse.release.made"
RELEASE_REFUSED_EVENT = "stillhouse.release.refused"
PROMOTION_MADE_EVENT, PROMOTION_REFUSED_EVENT = "stillhouse.promotion.made", "stillhouse.promotion.refused"
GATE_NOT_MET_STATE = "GateNotMet"
"""The state of a refused release."""

SILENCE_LIMIT = timedelta(seconds=90)
"""Three heartbeats (`PREFECT_FLOWS_HEARTBEAT_FREQUENCY` in prefect.yaml). A run that is marked by mistake, for example after a
pause of the server, loses nothing: the process that takes over finds the run locked and exits."""
RESTART_DELAY = timedelta(seconds=30)
"""Delay before a crashed run restarts. Prefect's worker reports a crash twice, seconds apart, and the second report would end a
run that restarted in between."""
CRASH_LIMIT, CRASH_WINDOW = 4, timedelta(days=1)
"""After this number of crashes within the window, a flow run is not restarted: it would crash again."""

OUR_FLOW_RUNS = ResourceSpecification({"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.stillhouse"})
ANY_FLOW_RUN = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
HEARTBEAT_EVENT, CRASHED_TOO_OFTEN_STATE = "heartbeat", "CrashedTooOften"
ENDING_EVENTS = ("Completed", "Failed", GATE_NOT_MET_STATE, CRASHED_TOO_OFTEN_STATE, "Cancelling", "Cancelled")
WAITING_EVENTS = ("Scheduled", "AwaitingRetry", "Paused", "Suspended")


def _build_lost_run_automation() -> AutomationCore:
    """Marks a flow run as crashed if it is Running but sends no heartbeat: its machine or worker died."""
    return AutomationCore(
        name="stillhouse: a run that went silent has crashed",
        description=f"No heartbeat for {SILENCE_LIMIT.seconds} seconds: the process died without a report.",
        trigger=_build_absence_trigger(
            (HEARTBEAT_EVENT,), (HEARTBEAT_EVENT, "Crashed", *ENDING_EVENTS, *WAITING_EVENTS), SILENCE_LIMIT
        ),
        actions=[
            ChangeFlowRunState(state=StateType.CRASHED, message=f"no heartbeat for {SILENCE_LIMIT.seconds} seconds")
        ],
    )


def _build_takeover_automation() -> AutomationCore:
    """Reschedules a crashed flow run: the next worker resumes the same flow run and run directory."""
    return AutomationCore(
        name="stillhouse: a run that crashed is taken over",
        description=f"Restarted after {RESTART_DELAY.seconds} seconds by any worker of the pool.",
        trigger=_build_absence_trigger(
            ("Crashed",), ("Pending", "Submitting", "Running", *ENDING_EVENTS, *WAITING_EVENTS), RESTART_DELAY
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.SCHEDULED,
                name="AwaitingRetry",
                message="its process died; the next worker resumes it",
            )
        ],
    )


def _build_give_up_automation() -> AutomationCore:
    """Fails a flow run that crashed too often."""
    message = f"crashed {CRASH_LIMIT} times within a day; see its log or the worker's log; Retry restarts it"
    return AutomationCore(
        name="stillhouse: a run that crashes again and again has failed",
        description=f"{CRASH_LIMIT} crashes within a day.",
        trigger=EventTrigger(
            expect=_name_events("Crashed"),
            match=ANY_FLOW_RUN,
            match_related=OUR_FLOW_RUNS,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=CRASH_LIMIT,
            within=CRASH_WINDOW,
        ),
        actions=[ChangeFlowRunState(state=StateType.FAILED, name=CRASHED_TOO_OFTEN_STATE, message=message)],
    )


def _build_absence_trigger(after: Sequence[str], expect: Sequence[str], within: timedelta) -> EventTrigger:
    """Fires for a flow run of ours that had an event of `after`, and then no event of `expect` for the time `within`."""
    return EventTrigger(
        after=_name_events(*after),
        expect=_name_events(*expect),
        match=ANY_FLOW_RUN,
        match_related=OUR_FLOW_RUNS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=within,
    )


def _name_events(*names: str) -> set[str]:
    return {f"prefect.flow-run.{name}" for name in names}


def _build_refusal_notification(block: UUID) -> AutomationCore:
    """Reports a refused release through a notification block."""
    subject = "stillhouse: {{ event.payload.recipe }} is not released"
    return _build_notification(block, "a refused release is reported", {RELEASE_REFUSED_EVENT}, subject)


def _build_promotion_notification(block: UUID) -> AutomationCore:
    """Reports through a notification block whether a released student becomes the next generator."""
    subject = "stillhouse: {{ event.payload.release }}: {{ event.payload.decision }}"
    events = {PROMOTION_MADE_EVENT, PROMOTION_REFUSED_EVENT}
    return _build_notification(block, "a promotion, or its refusal, is reported", events, subject)


def _build_notification(block: UUID, name: str, events: set[str], subject: str) -> AutomationCore:
    """Sends the payload's `why` for each of these events of a recipe."""
    return AutomationCore(
        name=f"stillhouse: {name}",
        description="Through the block named by `stillhouse deploy --notify`.",
        trigger=EventTrigger(
            expect=events,
            match=ResourceSpecification({"prefect.resource.id": "stillhouse.recipe.*"}),
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject=subject,
                body="{{ event.payload.why }}",
            )
        ],
    )


def create_automations(block: UUID | None) -> list[str]:
    """Create or update the automations. Returns their names. A disabled automation stays disabled. Without a notification block,
    an existing notification is unchanged.
    """
    automations = [
        _build_lost_run_automation(),
        _build_takeover_automation(),
        _build_give_up_automation(),
        *([_build_refusal_notification(block), _build_promotion_notification(block)] if block else []),
    ]
    with get_client(sync_client=True) as client:
        for automation in automations:
            if existing := client.read_automations_by_name(automation.name):
                automation.enabled = existing[0].enabled
                client.update_automation(existing[0].id, automation)
            else:
                client.create_automation(automation)
    return [automation.name for automation in automations]
