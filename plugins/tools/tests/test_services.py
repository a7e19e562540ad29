"""The simulated services: their tools, their one engine, plans of conversations, and what the checks find in wrong calls."""

import asyncio
import json
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from random import Random

import jsonschema
import pytest

from agents.checks.json_schema import validate_schema
from benchmarks.service_calls import PLANTERS, find_faults, list_plants, make_conversations, replay
from core.sample import Sample, SampleStatus, Seed, ToolCall
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.tools.checks.conversation_checks import dump_json, tool_use_check
from plugins.tools.simulation.conversation_plan import PlannedTurn
from plugins.tools.simulation.service_state import SimulatedService, find_value
from plugins.tools.simulation.services import build_tools, read_services
from plugins.tools.toolbox.tool_spec import build_tool_specs, read_parameter_schemas
from teachers.base import ChargeAccount, TeacherQuestion, TeacherReply
from teachers.fake.fake_teacher import FakeTeacher
from tests.support.scripted_teacher import build_test_seeds, produce_scripted

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
    phrases, styles = set(), set()
    for name, domain in read_services()["domains"].items():
        for seed in range(9):
            tools = build_tools(domain, seed)
            styles |= {re.sub("archive|shelve", "X", one) for one in tools if re.search("(?i)booking", one)}
            assert len(tools) == sum(8 + len(entity.changes) for entity in domain.entities)
        described = [tool.spec.model_dump() for tool in tools.values()]
        assert build_tool_specs(described, (), name) == [tool.spec for tool in tools.values()]
        for tool in tools.values():
            validate_schema(tool.spec.parameters)
            phrases.add((name, tool.phrase))
    assert styles >= {"X_booking", "XBooking", "booking_X"}
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


def is_over_limit(service: SimulatedService, call: ToolCall, name: str, words: str, most: str) -> bool:
    """Whether a call changes a record over the limit, or makes one."""
    tool = service.tools[call.name]
    if tool.entity.name != name or tool.operation in ("get", "search", "count"):
        return False
    path = next(field.path for field in tool.entity.given if field.words == words)
    record = service.records[name].get(call.arguments.get("id", ""), {})
    return any((find_value(values, path) or 0) > int(most) for values in (record, call.arguments))


def test_plans_are_the_same_each_time_varied_and_true() -> None:
    """Each planned call gives what its turn's kind says, and each refused one is followed by one that succeeds."""
    assert list(drawn_seeds()) == build_test_seeds(load_recipe_plan("tool-calls", [*FAKE, "samples=300"]))[:]
    kinds: Counter[str] = Counter()
    notes = []
    for seed in drawn_seeds():
        service, every = open_service(seed)
        limit = re.search(r"Any (.+) whose (.+) is over (\d+)", seed.data["rules"])
        needed = {name for turn in seed.data["plan"] for name in (*turn["tools"], *(c["name"] for c in turn["calls"]))}
        assert max(5, len(needed) + 3) <= len(seed.data["offered"]) <= max(20, len(needed) + 3)
        assert needed <= set(seed.data["offered"])
        assert set(seed.data["offered"]) <= set(every)
        for data in seed.data["plan"]:
            turn = PlannedTurn.model_validate(data)
            kinds[turn.kind] += 1
            notes.append(turn.notes)
            before = service.snapshot()
            assert not any(limit and is_over_limit(service, call, *limit.groups()) for call in turn.calls)
            results = [service.execute(call, every) for call in turn.calls]
            assert not any('"count": 0' in result.text for result in results)
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
        assert bool(refused) == recovered or "both" in sample.seed.data["kinds"]
    assert len(called) > 60


def test_a_critic_reads_the_rules_of_the_service(tmp_path: Path) -> None:
    plan = load_recipe_plan("tool-calls", [FAKE[0], "topology.max_revisions=0", "samples=6"])
    asked: list[TeacherQuestion] = []

    class Recorded(FakeTeacher):
        async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
            asked.append(question)
            return await super().reply(question, rank, account)

    samples = produce_scripted(plan, Recorded(plan.recipe.teachers["main"], "tool_calls"), tmp_path)
    reviews = [question.messages[-1].content for question in asked if question.contract.startswith("Review")]
    reviewed = [sample.seed.data["rules"] for sample in samples if sample.critiques]
    assert len(reviewed) >= 3
    assert all(any(f"Rules of the assistant: {rules}\n" in review for review in reviews) for rules in reviewed)


def test_wrong_calls_are_found() -> None:
    """In ten ways, each with an honest reply; the conversations without them are the control."""
    found: dict[str, list[bool]] = defaultdict(list)
    for sample in scripted_samples()[:12]:
        for way, number, calls in list_plants(sample, Random(7)):
            planted, control = replay(sample, number, calls), replay(sample, number)
            assert find_faults(control) == []
            found[way].append(bool(find_faults(planted)))
    assert set(found) == set(PLANTERS)
    caught = [one for some in found.values() for one in some]
    assert len(caught) > 80
    assert sum(caught) >= 0.95 * len(caught)


def test_a_fault_does_not_contain_the_plan() -> None:
    """The assistant reads it too when it revises."""
    faults = []
    for sample in scripted_samples()[:12]:
        for _, number, calls in list_plants(sample, Random(7)):
            wish = PlannedTurn.model_validate(sample.seed.data["plan"][number])
            findings = asyncio.run(tool_use_check.findings(replay(sample, number, calls), tool_use_check.options()))
            fault = "".join(one.evidence for one in findings if not one.passed)
            hidden = [dump_json(call.arguments) for call in wish.calls if call not in calls]
            assert not any(text in fault for text in (wish.notes, *hidden))
            faults.append(fault)
    assert sum("the request must give every detail" in fault for fault in faults) > 40


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
    assert find_faults(subject) == []
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
