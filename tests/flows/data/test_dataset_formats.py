"""The dataset as others read it: every form through `datasets` and polars, from samples as a run leaves them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.config.recipe import Recipe
from core.errors import RecipeError
from core.runs.records import RunManifest, RunState
from core.runs.run_dir import RunDir
from core.sample import Candidate, Message, Sample, SampleStatus, Seed, TokenUsage, ToolCall
from core.storage.sample_files import write_samples
from flows.data.curated_run import read_kept_rows, split_rows
from flows.data.dataset_formats import convert_to_alpaca, convert_to_sharegpt, count_prompt_turns
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.run import stages
from flows.terminal.run_summary import format_run_card

ALL = ("messages", "prompt_completion", "alpaca", "sharegpt")
TOOL = {
    "name": "set_light",
    "description": "Switches a light.",
    "parameters": {"type": "object", "properties": {"room": {"type": "string"}, "level": {"type": "number"}}},
}


def turns_of(*turns: tuple[str, str]) -> list[Message]:
    return [Message.model_validate({"role": role, "content": content}) for role, content in turns]


PLAIN = turns_of(("user", "Write about bees.\nOne sentence."), ("assistant", "Bees “hum” \\ at dawn."))
WITH_SYSTEM = turns_of(("system", "Be brief."), ("user", "And tea?"), ("assistant", "Tea warms."))
LONG = turns_of(("user", "Name one."), ("assistant", "Oak."), ("user", "And one more?"), ("assistant", "Elm."))
CALLING = [
    *turns_of(("system", "You may call tools."), ("user", "Dim the hall.")),
    Message(
        role="assistant", content="", tool_calls=(ToolCall(name="set_light", arguments={"room": "hall", "level": 0.2}),)
    ),
    Message(role="tool", content='{"ok": true}', name="set_light"),
    *turns_of(("assistant", "The hall is dim.")),
]


def sample(number: int, messages: Sequence[Message], **fields: Any) -> Sample:
    name = f"s-{number:06d}"
    return Sample(
        id=name, seed=Seed(id=name, data={}), state=SampleStatus.kept,
        candidate=Candidate(messages=list(messages), fields=fields),
        revisions=0, turns=[], critiques=[], verdicts=[], usage=TokenUsage(),
    )  # fmt: skip


def recipe_of(**changes: Any) -> Recipe:
    return Recipe.model_validate({"name": "mine", "seeds": {"path": "x"}, **changes})


class Dataset:
    """A run's dataset, packaged from `samples`."""

    def __init__(self, folder: Path, samples: Sequence[Sample], formats: Sequence[str], *, jsonl: bool = True) -> None:
        self.run = RunDir(folder / "mine-00000000")
        for file in (self.run.shard_file(0), self.run.kept_file(0)):
            write_samples(file, samples)
        self.recipe = recipe_of(dataset={"formats": formats, "jsonl": jsonl})
        self.manifest = RunManifest(run="mine-00000000", digest="0" * 16, started="2026-11-25T01:41:12+00:00")
        self.parts = split_rows(read_kept_rows(self.run), 0.25, seed=7)
        self.missing = stages.write_dataset(self.run, self.manifest, self.recipe, self.parts)
        self.cache = folder / "cache"

    def load(self, *name: str) -> dict[str, list[dict[str, Any]]]:
        from datasets import load_dataset

        loaded = load_dataset(str(self.run.dataset), *name, cache_dir=str(self.cache))
        return {side: list(rows) for side, rows in loaded.items()}

    def rows(self, *name: str) -> list[dict[str, Any]]:
        return [row for side in self.load(*name).values() for row in side]

    def lines(self, name: str) -> list[dict[str, Any]]:
        files = [self.run.dataset / name / f"{side}.jsonl" for side in ("train", "validation")]
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def plain_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def openai_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """As OpenAI's API has them, with no key that is empty."""
    made = plain_turns(messages)
    for turn, message in zip(made, messages, strict=True):
        if message.name:
            turn["name"] = message.name
        if message.tool_calls:
            turn["tool_calls"] = [{"type": "function", "function": call.model_dump()} for call in message.tool_calls]
    return made


def test_conversations_without_tools_come_back_in_every_form(tmp_path: Path) -> None:
    samples = [
        sample(number, talk) for number, talk in enumerate([PLAIN, WITH_SYSTEM, LONG, PLAIN[:1] + WITH_SYSTEM[2:]])
    ]
    made = Dataset(tmp_path, samples, ALL)
    talks = {one.id: one.candidate.messages for one in samples}
    default = made.load()
    assert sorted(row["id"] for side in default.values() for row in side) == sorted(talks)
    assert default == made.load("messages")
    assert all(row["messages"] == plain_turns(talks[row["id"]]) for row in made.rows())
    for row in made.rows("prompt_completion"):
        assert row["prompt"] + row["completion"] == plain_turns(talks[row["id"]])
        assert [turn["role"] for turn in row["completion"]] == ["assistant"]
    alpaca = {row["id"]: row for row in made.rows("alpaca")}
    assert alpaca["s-000001"]["system"] == "Be brief."
    assert alpaca["s-000002"]["history"] == [["Name one.", "Oak."]]
    assert (alpaca["s-000002"]["instruction"], alpaca["s-000002"]["output"]) == ("And one more?", "Elm.")
    assert alpaca["s-000000"]["history"] == []
    sharegpt = {row["id"]: row["conversations"] for row in made.rows("sharegpt")}
    assert [turn["from"] for turn in sharegpt["s-000001"]] == ["system", "human", "gpt"]
    assert [turn["value"] for turn in sharegpt["s-000000"]] == [message.content for message in PLAIN]


def test_jsonl_has_the_rows_of_the_parquet(tmp_path: Path) -> None:
    made = Dataset(tmp_path, [sample(0, PLAIN), sample(1, WITH_SYSTEM, reasoning="Why\nnot?"), sample(2, CALLING)], ALL)
    assert {name: made.lines(name) for name in ALL} == {name: made.rows(name) for name in ALL}


def test_polars_reads_plain_conversations_as_lists_of_role_and_content(tmp_path: Path) -> None:
    made = Dataset(tmp_path, [sample(0, PLAIN), sample(1, WITH_SYSTEM)], ["messages"], jsonl=False)
    rows = pl.concat(pl.read_parquet(made.run.dataset / f"{side}.parquet") for side in ("train", "validation"))
    assert rows.schema == {"id": pl.String, "messages": pl.List(pl.Struct({"role": pl.String, "content": pl.String}))}
    assert sorted(f.name for f in made.run.dataset.iterdir()) == ["README.md", "train.parquet", "validation.parquet"]


def test_tool_calls_are_read_back_in_openai_form_without_empty_keys(tmp_path: Path) -> None:
    """Chat templates ask whether a turn has `tool_calls`, and fail on None."""
    call = ToolCall(name="set_light", arguments={"room": "yard", "level": 1.0})
    at_once = CALLING[2].model_copy(update={"tool_calls": (*CALLING[2].tool_calls, call)})
    both = [*CALLING[:2], at_once, CALLING[3], *CALLING[3:]]
    samples = [sample(0, CALLING, tools=[TOOL]), sample(1, PLAIN), sample(2, both)]
    made = Dataset(tmp_path, samples, ["messages", "prompt_completion"])
    rows = {row["id"]: row for row in made.rows()}
    assert rows["s-000000"]["messages"] == openai_turns(CALLING)
    assert rows["s-000000"]["messages"][2]["tool_calls"][0]["function"]["arguments"] == {"room": "hall", "level": 0.2}
    assert rows["s-000000"]["tools"] == [{"type": "function", "function": TOOL}]
    assert rows["s-000001"]["messages"] == plain_turns(PLAIN)
    assert rows["s-000001"]["tools"] is None
    assert rows["s-000002"]["messages"] == openai_turns(both)
    [asked_for] = [row for row in made.rows("prompt_completion") if row["id"] == "s-000000"]
    assert asked_for["prompt"] == openai_turns(CALLING[:2])
    assert asked_for["completion"] == openai_turns(CALLING[2:])


def test_a_column_of_the_seeds_that_is_called_tools_offers_no_tools(tmp_path: Path) -> None:
    one = sample(0, PLAIN).model_copy(update={"seed": Seed(id="s-000000", data={"tools": ["a hammer"]})})
    assert all("tools" not in row for row in Dataset(tmp_path, [one], ["messages"]).rows())


def test_rows_that_a_form_cannot_hold_are_omitted_and_counted(tmp_path: Path) -> None:
    mixed = [*CALLING[:2], CALLING[2].model_copy(update={"content": "One moment."}), *CALLING[3:]]
    odd = turns_of(("user", "a"), ("user", "b"), ("assistant", "c"))
    samples = [sample(0, PLAIN), sample(1, CALLING), sample(2, mixed), sample(3, odd), sample(4, WITH_SYSTEM[:2])]
    made = Dataset(tmp_path, samples, ALL)
    left_out = {form.name: form.left_out for form in made.manifest.formats}
    assert left_out == {"messages": 0, "prompt_completion": 1, "alpaca": 4, "sharegpt": 1}
    assert all(form.train + form.validation + form.left_out == 5 for form in made.manifest.formats)
    for form in made.manifest.formats:
        assert len(made.rows(form.name)) == form.train + form.validation
    card = (made.run.dataset / "README.md").read_text()
    assert "| `alpaca` | 1 | 0 | 4 |" in card or "| `alpaca` | 0 | 1 | 4 |" in card
    assert "alpaca 1 (4 left out)" in format_run_card(made.manifest, made.run)
    assert made.missing == []


def test_a_form_without_rows_is_reported_as_missing(tmp_path: Path) -> None:
    made = Dataset(tmp_path, [sample(0, CALLING), sample(1, CALLING)], ["messages", "alpaca"])
    assert made.missing == [
        "alpaca can hold none of the kept samples: they call tools or have images, or their turns do not alternate"
    ]


def test_calls_are_separate_turns_in_sharegpt() -> None:
    two = CALLING[2].model_copy(update={"tool_calls": CALLING[2].tool_calls * 2})
    flat = [{**one, "tool_calls": None} for one in plain_turns(CALLING)]
    flat[2]["tool_calls"] = json.dumps([call.model_dump() for call in two.tool_calls])
    made = convert_to_sharegpt(flat)
    assert made is not None
    assert [turn["from"] for turn in made["conversations"]] == ["system", "human", "function_call", "tool", "gpt"]
    assert json.loads(made["conversations"][2]["value"])[1]["arguments"]["room"] == "hall"
    assert convert_to_alpaca(flat) is None


def test_reasoning_is_a_column_where_any_sample_has_it(tmp_path: Path) -> None:
    made = Dataset(tmp_path, [sample(0, PLAIN, reasoning="First, ünïcode."), sample(1, WITH_SYSTEM)], ALL)
    for name in ALL:
        reasons = {row["id"]: row["reasoning"] for row in made.rows(name)}
        assert reasons == {"s-000000": "First, ünïcode.", "s-000001": None}
    assert "`reasoning`" in (made.run.dataset / "README.md").read_text()
    without = Dataset(tmp_path / "without", [sample(0, PLAIN, steps=3), sample(1, WITH_SYSTEM)], ["messages"])
    assert set(without.rows()[0]) == {"id", "messages"}


def test_a_run_that_kept_nothing_has_empty_files_and_a_card_that_names_none(tmp_path: Path) -> None:
    """`datasets` cannot load a split without rows."""
    made = Dataset(tmp_path, [], ALL)
    assert pl.read_parquet(made.run.dataset / "alpaca" / "validation.parquet").is_empty()
    assert "configs:" not in (made.run.dataset / "README.md").read_text()
    assert made.missing == []


def test_a_split_without_rows_is_not_named_so_that_the_rest_loads(tmp_path: Path) -> None:
    made = Dataset(tmp_path, [sample(0, PLAIN)], ["messages", "alpaca"])
    assert list(made.load("alpaca")) == ["train"]


@pytest.mark.parametrize(
    ("roles", "count"),
    [
        (["user", "assistant"], 1),
        (["system", "user", "assistant"], 2),
        (["user", "assistant", "user", "assistant"], 3),
        (["user", "assistant", "tool", "assistant"], 1),
        (["assistant"], 0),
        ([], 0),
    ],
)
def test_a_prompt_ends_with_the_last_question(roles: list[str], count: int) -> None:
    assert count_prompt_turns(roles) == count


def test_packaging_again_replaces_the_dataset(tmp_path: Path) -> None:
    made = Dataset(tmp_path, [sample(0, PLAIN), sample(1, WITH_SYSTEM)], ALL)
    only = made.recipe.model_copy(update={"dataset": recipe_of().dataset})
    stages.write_dataset(made.run, made.manifest, only, made.parts)
    assert [form.name for form in made.manifest.formats] == ["messages"]
    assert sorted(f.name for f in made.run.dataset.iterdir()) == [
        "README.md",
        "messages",
        "train.parquet",
        "validation.parquet",
    ]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["dataset.formats=['csv']"], "dataset.formats.0: input should be 'messages', 'prompt_completion'"),
        (["dataset.formats=[]"], "dataset.formats: list should have at least 1 item"),
        (["dataset.formats=['alpaca','alpaca']"], "dataset.formats: alpaca: named more than once"),
        (["dataset.format=['alpaca']"], "dataset.format: unknown key, did you mean `formats`?"),
        (["dataset.formats=['preference']", "topology.kind=single"], "topology.kind = 'single' judges none"),
        (["dataset.formats=['preference']", "topology.max_revisions=0"], "set answers_per_seed to 2 or more"),
        (["answers_per_seed=3", "agents.generator.temperature=0"], "gives the same answer answers_per_seed = 3 times"),
        (["preference.margin=0"], "preference.margin: input should be greater than 0, not 0"),
    ],
)
def test_an_impossible_dataset_is_rejected_with_the_recipe(settings: list[str], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe_plan("smoke", settings)
    assert problem in str(caught.value)


def test_the_run_card_lists_forms_only_if_there_are_several(tmp_path: Path) -> None:
    one = Dataset(tmp_path / "one", [sample(0, PLAIN), sample(1, WITH_SYSTEM)], ["messages"])
    one.manifest.state = RunState.done
    assert f"dataset   {one.run.dataset}\n" in format_run_card(one.manifest, one.run)
    two = Dataset(tmp_path / "two", [sample(0, PLAIN), sample(1, WITH_SYSTEM)], ["messages", "alpaca"])
    assert re.search(r"messages 2\s+alpaca 2", format_run_card(two.manifest, two.run)), (
        "on a line or, after a long path, on two"
    )
