"""The lower bound: LangGraph alone, with the nodes and routes of `agents/topologies/topology_graphs.py`. No store, no retries.

Without a URL its teacher answers at once, in the process.
"""

import asyncio
import operator
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, Literal, TypedDict

import aiohttp
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command
from pydantic import BaseModel

from benchmarks.peers.work import (
    CRITIC,
    DRAFT_PROMPT,
    REVIEW_PROMPT,
    WRITER,
    Draft,
    PeerResult,
    PeerTask,
    Review,
    is_right,
    run_driver,
)


@dataclass(frozen=True)
class Teacher:
    ask: Callable[[str, str, type[BaseModel]], Awaitable[str]]
    """System prompt, request and contract; the reply's text."""


STEPS: dict[str, Literal["generator", "critic", "verifier", "__end__"]] = {
    "": "generator",
    "generator": "critic",
    "critic": "verifier",
    "verifier": "__end__",
}


SCHEMAS: dict[type[BaseModel], dict[str, Any]] = {
    contract: {"name": contract.__name__, "schema": contract.model_json_schema()} for contract in (Draft, Review)
}


class Handover(TypedDict):
    agent: str
    payload: str


class Work(TypedDict):
    topic: str
    handovers: Annotated[list[Handover], operator.add]
    answer: str
    passed: bool


async def orchestrator(state: Work) -> Command[Literal["generator", "critic", "verifier", "__end__"]]:
    last = state["handovers"][-1] if state["handovers"] else Handover(agent="", payload="")
    update: dict[str, Any] = {}
    if last["agent"] == "generator":
        update = {"answer": Draft.model_validate_json(last["payload"]).answer}
    if last["agent"] == "critic":
        Review.model_validate_json(last["payload"])
    if last["agent"] == "verifier":
        update = {"passed": last["payload"] == "True"}
    return Command(goto=STEPS[last["agent"]], update=update)


async def generator(state: Work, runtime: Runtime[Teacher]) -> dict[str, Any]:
    payload = await runtime.context.ask(WRITER, DRAFT_PROMPT.format(topic=state["topic"]), Draft)
    return {"handovers": [Handover(agent="generator", payload=payload)]}


async def critic(state: Work, runtime: Runtime[Teacher]) -> dict[str, Any]:
    asked = REVIEW_PROMPT.format(topic=state["topic"], answer=state["answer"])
    return {"handovers": [Handover(agent="critic", payload=await runtime.context.ask(CRITIC, asked, Review))]}


async def verifier(state: Work) -> dict[str, Any]:
    return {"handovers": [Handover(agent="verifier", payload=str(is_right(state["topic"], state["answer"])))]}


def build_graph() -> CompiledStateGraph[Work, Teacher, Work, Work]:
    graph = StateGraph(Work, Teacher)
    graph.add_node("orchestrator", orchestrator)
    for name, node in (("generator", generator), ("critic", critic), ("verifier", verifier)):
        graph.add_node(name, node)
        graph.add_edge(name, "orchestrator")
    graph.add_edge(START, "orchestrator")
    return graph.compile()


async def answer_instantly(_system: str, asked: str, contract: type[BaseModel]) -> str:
    if contract is Draft:
        return f'{{"answer": "{asked.split(".")[0].removeprefix("Write about ")} brings a quiet lamp."}}'
    return '{"scores": {"sense": 4, "style": 5}, "faults": [], "advice": "Keep it as it is."}'


@asynccontextmanager
async def open_teacher(task: PeerTask) -> AsyncIterator[Teacher]:
    if not task.url:
        yield Teacher(answer_instantly)
        return
    connector = aiohttp.TCPConnector(limit=task.concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(system: str, asked: str, contract: type[BaseModel]) -> str:
            body = {
                "model": "model",
                "messages": [{"role": "system", "content": system}, {"role": "user", "content": asked}],
                "response_format": {"type": "json_schema", "json_schema": SCHEMAS[contract]},
            }
            async with session.post(f"{task.url}/chat/completions", json=body) as response:
                return str((await response.json())["choices"][0]["message"]["content"])

        yield Teacher(ask)


async def run(task: PeerTask) -> PeerResult:
    graph = build_graph()
    made: list[tuple[str, str]] = []

    async def work(topics: Iterator[str], teacher: Teacher) -> None:
        for topic in topics:
            begun = Work(topic=topic, handovers=[], answer="", passed=False)
            ended = await graph.ainvoke(begun, context=teacher)
            made.append((topic, ended["answer"]))

    async with open_teacher(task) as teacher:
        topics = iter(task.topics)
        await asyncio.gather(*(work(topics, teacher) for _ in range(task.concurrency)))
    return PeerResult(made)


if __name__ == "__main__":
    run_driver(lambda task: asyncio.run(run(task)), f"langgraph {version('langgraph')}")
