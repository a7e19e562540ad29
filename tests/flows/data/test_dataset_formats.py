"""The dataset as others read it: every form through `datasets` and polars, from samples as a run leaves them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.config.recipe import Recipe
from core.errors import RecipeError
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.sample import Candidate, Message, Sample, SampleStatus, Seed, TokenUsage, ToolCall
from core.storage.sample_files import write_samples
from flows.data.curated_run import read_kept_rows, split_rows
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.rows.row_forms import read_row_conversation
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

    def __init__(
        self,
        folder: Path,
        samples: Sequence[Sample],
        formats: Sequence[str],
        *,
        thinking: Any = False,
    ) -> None:
        self.run = RunDir(folder / "mine-00000000")
        for file in (self.run.shard_file(0), self.run.kept_file(0)):
            write_samples(file, samples)
        self.recipe = recipe_of(dataset={"formats": formats, "thinking": thinking})
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


def test_rows_that_a_form_cannot_hold_are_omitted_and_counted(tmp_path: Path) -> None:
    mixed = [*CALLING[:2], CALLING[2].model_copy(update={"content": "One moment."}), *CALLING[3:]]
    odd = turns_of(("user", "a"), ("user", "b"), ("assistant", "c"))
    samples = [sample(0, PLAIN), sample(1, CALLING), sample(2, mixed), sample(3, odd), sample(4, WITH_SYSTEM[:2])]
    made = Dataset(tmp_path, samples, ALL)
    left_out = {form.name: form.left_out for form in made.manifest.dataset.formats}
    assert left_out == {"messages": 0, "prompt_completion": 1, "alpaca": 4, "sharegpt": 1}
    assert all(form.train + form.validation + form.left_out == 5 for form in made.manifest.dataset.formats)
    for form in made.manifest.dataset.formats:
        assert len(made.rows(form.name)) == form.train + form.validation
    card = (made.run.dataset / "README.md").read_text()
    assert "| `alpaca` | 1 | 0 | 4 |" in card or "| `alpaca` | 0 | 1 | 4 |" in card
    assert "alpaca 1 (4 left out)" in format_run_card(made.manifest, made.run)
    assert made.missing == []


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


QWEN3_TURNS = """{%- set ns = namespace(last=-1) %}{%- for message in messages %}{%- if message.role == 'user' %}
{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}{%- set content = message.content %}{%- set reasoning_content = '' %}
{%- if message.reasoning_content is defined and message.reasoning_content is not none %}
{%- set reasoning_content = message.reasoning_content %}
{%- elif '</think>' in content %}
{%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' and loop.index0 > ns.last and (loop.last or reasoning_content) %}
{{- '<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
{%- else %}{{- content }}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}"""
"""The part of Qwen3's chat template that writes turns, with thinking after the last question only."""


def thinking_turns(thinking: str | None) -> list[Message]:
    return [*PLAIN[:1], PLAIN[1].model_copy(update={"reasoning": thinking})]


@pytest.mark.parametrize("form", ["tags", "field"])
def test_thinking_reaches_a_chat_template_alike_in_both_forms(form: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    samples = [sample(n, thinking_turns(f"Bees?\nOne {n}." if n else None)) for n in range(4)]
    formats = ["messages", "prompt_completion"]
    made = Dataset(tmp_path, samples, formats, thinking=form)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    tokenizer.chat_template = QWEN3_TURNS
    asked, answer = (turn.content for turn in PLAIN)
    rows = {row["id"]: row for side in made.load().values() for row in side}
    for number in range(4):
        row = rows[f"s-{number:06d}"]
        thinking = f"Bees?\nOne {number}." if number else ""
        golden = {
            "tags": [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": f"<think>\n{thinking}\n</think>\n\n{answer}" if number else answer},
            ],
            "field": [
                {"role": "user", "content": asked, "reasoning_content": None},
                {"role": "assistant", "content": answer, "reasoning_content": thinking or None},
            ],
        }[form]
        assert row["messages"] == golden
        assert tokenizer.apply_chat_template(row["messages"], tokenize=False) == (
            f"<|im_start|>user\n{asked}<|im_end|>\n"
            f"<|im_start|>assistant\n<think>\n{thinking}\n</think>\n\n{answer}<|im_end|>\n"
        )
    halves = {row["id"]: row for side in made.load("prompt_completion").values() for row in side}
    assert all([*halves[name]["prompt"], *halves[name]["completion"]] == rows[name]["messages"] for name in rows)
    read = {row.pop("id"): read_row_conversation(row) for row in map(dict, rows.values())}
    assert read == {one.id: one.candidate.messages for one in samples}, "and it is read back"


@pytest.mark.parametrize("written", [True, False])
def test_tools_are_in_the_system_message_or_in_a_column(written: bool, tmp_path: Path) -> None:
    one = sample(0, CALLING, tools=[TOOL]).model_copy(
        update={"seed": Seed(id="s-000000", data={"written_out": written})}
    )
    rows = {row["id"]: row for row in Dataset(tmp_path, [one, sample(1, PLAIN)], ["messages"]).rows()}
    assert (rows["s-000000"].get("tools") is None) == written


@pytest.mark.parametrize("form", ["tags", "field"])
def test_a_prompt_has_no_thinking_of_its_turns(form: str, tmp_path: Path) -> None:
    turns = [*thinking_turns("First."), Message(role="user", content="More?"), *thinking_turns("Second.")[1:]]
    made = Dataset(tmp_path, [sample(n, turns) for n in range(4)], ["prompt_completion"], thinking=form)
    rows = [row for side in made.load("prompt_completion").values() for row in side]
    assert not any("First." in str(row["prompt"]) for row in rows)
    assert all("Second." in str(row["completion"]) for row in rows)


def test_a_form_without_a_field_for_thinking_is_refused() -> None:
    with pytest.raises(ValueError, match=r"alpaca and sharegpt have no field for thinking; set \"tags\""):
        recipe_of(dataset={"formats": ["alpaca", "messages", "sharegpt"], "thinking": "field"})
    with pytest.raises(ValueError, match=r"dataset\.thinking"):
        recipe_of(dataset={"thinking": True})
