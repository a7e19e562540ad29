"""The simulated services: their tools, their one engine, plans of conversations, and what the checks find in wrong calls."""

import asyncio
import json
from collections import Counter, defaultdict
from functools import cache
from random import Random

import jsonschema
import pytest

from agents.checks.json_schema import validate_schema
from benchmarks.service_calls import PLANTERS, find_faults, list_plants, make_conversations, replay
from core.sample import Sample, SampleStatus, Seed, ToolCall
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.tools.checks.call_schema import read_parameter_schemas
from plugins.tools.simulation.conversation_plan import PlannedTurn
from plugins.tools.simulation.service_state import SimulatedService
from plugins.tools.simulation.services import read_services
from plugins.tools.toolbox.tool_spec import build_tool_specs
from tests.support.scripted_teacher import build_test_seeds

FAKE = ["teachers.main={model='fake/tool_calls'}", "agents.critic=false", "topology.max_revisions=0"]


@cache
def drawn_seeds() -> tuple[Seed, ...]:
    return tuple(build_test_seeds(load_recipe_plan("tool-calls", [*FAKE, "samples=300"]))[:])


@cache
def scripted_samples() -> list[Sample]:
    return asyncio.run(make_conversations(24))


def open_service(seed: Seed) -> tuple[SimulatedService, dict[str, object]]:
    service = SimulatedService(**seed.data["service"])
    return service, {name: tool.spec.parameters for name, tool in service.tools.items()}


def test_hundreds_of_tools_have_usable_schemas_and_different_names() -> None:
    phrases = set()
    for domain in read_services()["domains"]:
        service = SimulatedService(domain, 3)
        described = [tool.spec.model_dump() for tool in service.tools.values()]
        assert build_tool_specs(described, (), domain) == [tool.spec for tool in service.tools.values()]
        for tool in service.tools.values():
            validate_schema(tool.spec.parameters)
            phrases.add((domain, tool.phrase))
        assert len(service.tools) == sum(8 + len(entity.changes) for entity in service.domain.entities)
    assert len(phrases) > 600
    kinds = {"object": 0, "array": 0, "enum": 0}
    for seed in drawn_seeds():
        service = open_service(seed)[0]
        shown = json.dumps([service.tools[name].spec.parameters for name in seed.data["offered"]])
        for kind in kinds:
            kinds[kind] += f'"{kind}"' in shown
    assert min(kinds.values()) > 150


def test_a_call_sees_the_effects_of_earlier_ones_and_a_refused_one_has_none() -> None:
    service = SimulatedService("hotel", 5)
    names = {(tool.entity.name, tool.operation): name for name, tool in service.tools.items()}
    offered = {name: tool.spec.parameters for name, tool in service.tools.items()}

    def call(operation: str, **arguments: object) -> str:
        return service.execute(ToolCall(name=names["booking", operation], arguments=arguments), offered).content

    before = service.snapshot()
    new = {"guest": "Zoe Quill", "room": "suite", "check_in": "2026-05-01", "nights": 3}
    assert call("create", **{**new, "nights": 15}) == "error: nights can be at most 14"
    assert "do not fit its schema" in call("create", **{**new, "room": "tent"})
    assert call("get", id="BO-1") == "error: there is no booking BO-1"
    assert service.snapshot() == before
    created = json.loads(call("create", **new))
    assert json.loads(call("search", guest="quill"))["list"][0]["id"] == created["id"]
    assert json.loads(call("get", id=created["id"])) == {
        "id": created["id"],
        **new,
        "status": "requested",
        "price_eur": created["price_eur"],
    }
    call("update", id=created["id"], nights=4, contact={"town": "Ghent"})
    assert json.loads(call("get", id=created["id"]))["contact"] == {"town": "Ghent"}
    call("archive", id=created["id"])
    assert json.loads(call("count", guest="Zoe Quill"))["count"] == 0
    assert json.loads(call("count", guest="Zoe Quill", include_archived=True))["count"] == 1
    call("remove", id=created["id"])
    assert call("get", id=created["id"]) == f"error: there is no booking {created['id']}"
    assert service.snapshot() == before


def test_plans_are_the_same_each_time_varied_and_true() -> None:
    """Each planned call gives what its turn's kind says, and each refused one is followed by one that succeeds."""
    assert list(drawn_seeds()) == build_test_seeds(load_recipe_plan("tool-calls", [*FAKE, "samples=300"]))[:]
    kinds: Counter[str] = Counter()
    notes = []
    for seed in drawn_seeds():
        service, every = open_service(seed)
        assert 5 <= len(seed.data["offered"]) <= 20 or len(seed.data["plan"]) > 5
        assert set(seed.data["offered"]) <= set(every)
        for data in seed.data["plan"]:
            turn = PlannedTurn.model_validate(data)
            kinds[turn.kind] += 1
            notes.append(turn.notes)
            assert {call.name for call in turn.calls} <= set(seed.data["offered"])
            before = service.snapshot()
            results = [service.execute(call, every) for call in turn.calls]
            if turn.kind == "error":
                assert results[-1].failed
                assert service.snapshot() == before
            assert all(not result.failed for result in results) or turn.kind == "error"
            assert bool(turn.calls) == (turn.kind in ("call", "both", "recover", "error"))
    assert set(kinds) == {"call", "both", "ask", "error", "recover", "confirm", "refuse", "limit", "outside"}
    assert min(kinds.values()) > 20
    assert len(set(notes)) > 0.85 * len(notes)
    assert max(len(seed.data["plan"]) for seed in drawn_seeds()) == 10


def test_right_conversations_are_kept_and_true() -> None:
    samples = scripted_samples()
    assert [sample.detail for sample in samples if sample.state is not SampleStatus.kept] == []
    called = set()
    for sample in samples:
        schemas = read_parameter_schemas(sample.candidate.fields["tools"])
        recovered = "recover" in sample.seed.data["kinds"]
        for message in sample.candidate.messages:
            for call in message.tool_calls:
                jsonschema.validate(call.arguments, schemas[call.name])
                called.add(call.name)
        refused = [m for m in sample.candidate.messages if m.role == "tool" and "the codes are" in m.content]
        assert bool(refused) <= recovered or "both" in sample.seed.data["kinds"]
    assert len(called) > 60


def test_wrong_calls_are_found() -> None:
    """In ten ways, each with an honest reply; the conversations without them are the control."""
    found: dict[str, list[bool]] = defaultdict(list)
    for sample in scripted_samples()[:12]:
        for way, number, calls in list_plants(sample, Random(7)):
            planted, control = replay(sample, number, calls), replay(sample, number)
            assert planted
            assert control
            assert find_faults(control) == []
            found[way].append(bool(find_faults(planted)))
    assert set(found) == set(PLANTERS)
    caught = [one for some in found.values() for one in some]
    assert len(caught) > 80
    assert sum(caught) >= 0.95 * len(caught)


def test_a_result_that_no_service_gave_is_found() -> None:
    sample = next(
        one
        for one in scripted_samples()
        if any(m.role == "tool" and '"id": "' in m.content for m in one.candidate.messages)
    )
    messages = [
        message.model_copy(update={"content": message.content.replace('"id": "', '"id": "X')})
        if message.role == "tool"
        else message
        for message in sample.candidate.messages
    ]
    subject = replay(sample, len(sample.seed.data["kinds"]) - 1)
    assert subject
    forged = subject._replace(candidate=sample.candidate.model_copy(update={"messages": messages}))
    assert "tool_result" in find_faults(forged)


@pytest.mark.parametrize(
    ("row", "problem"),
    [({"task": "a nurse", "domain": "moon base"}, "'domain' with one of hotel, "), ({"task": 3}, "'task' with a text")],
)
def test_a_row_that_names_no_service_is_refused(row: dict[str, object], problem: str) -> None:
    family = load_recipe_plan("tool-calls", FAKE).family
    with pytest.raises(TypeError, match=problem):
        family.condition(row, family.options(), Random(1))
