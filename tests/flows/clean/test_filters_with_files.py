"""Filters that read files and change text, in a run and on a dataset: paths, identity, masks, reports, rejected input."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.config.recipe import Recipe
from core.errors import RecipeError
from core.runs.run_dir import RunDir
from core.sample import AgentTurn, Candidate, Critique, Message, Sample, SampleStatus, Seed, TokenUsage, ToolCall
from core.storage.atomic_files import read_json
from core.storage.sample_files import read_samples, write_samples
from flows.clean import filter_engine
from flows.clean.dataset_filter import HIDDEN_TEXT, filter_dataset, parse_filter_settings
from flows.clean.run_curation import curate_run
from flows.recipes.recipe_catalog import load_recipe_plan

QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many in May."
PII = '[{type = "pii"}]'


def turns(question: str, answer: str, system: str = "Be kind.") -> list[Message]:
    return [
        Message(role="system", content=system),
        Message(role="user", content=question),
        Message(role="assistant", content=answer),
    ]


def sample(name: str, messages: list[Message], score: int = 3, reply: str = "") -> Sample:
    turn = AgentTurn(
        agent="generator", revision=0, attempt=0, teacher="fake/x", asked="?", reply=reply, usage=TokenUsage()
    )
    return Sample(
        id=name, seed=Seed(id=name, data={"mail": "carl@acme.io"}), state=SampleStatus.kept,
        candidate=Candidate(messages=messages, fields={"note": "ask\nbob@acme.io"}), revisions=0, turns=[turn],
        critiques=[Critique(revision=0, scores={"a": score}, faults=[], advice="")], verdicts=[], usage=TokenUsage(),
    )  # fmt: skip


def curated_run(folder: Path, samples: list[Sample], filters: list[dict[str, Any]]) -> RunDir:
    run = RunDir(folder / "run")
    write_samples(run.shard_file(0), samples)
    recipe = Recipe.model_validate({"name": "x", "samples": len(samples), "seeds": {}, "filters": filters})
    curate_run(run, recipe, [], folder)
    return run


def test_a_run_masks_messages_fields_seed_and_history_of_what_it_keeps(tmp_path: Path) -> None:
    call = ToolCall(name="mail", arguments={"to": "anna@acme.io", "card": 4111111111111111})
    messages = [
        *turns("Who is bob@acme.io?", "Write to anna@acme.io.", system="You are carl@acme.io."),
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", name="mail", content='{"sent": "4111111111111111"}'),
    ]
    run = curated_run(
        tmp_path,
        [sample("x-0", messages, reply='{"a": "anna@acme.io"}'), sample("x-1", turns("?", "No."))],
        [{"type": "pii"}],
    )
    kept = read_samples(run.kept_file(0))
    text = kept[0].model_dump_json()
    assert [one.id for one in kept] == ["x-0", "x-1"]
    assert "acme.io" not in text
    assert "4111" not in text
    assert [message.content for message in kept[0].candidate.messages[:3]] == [
        "You are [EMAIL].", "Who is [EMAIL]?", "Write to [EMAIL].",
    ]  # fmt: skip
    assert kept[0].candidate.messages[3].tool_calls[0].arguments == {"to": "[EMAIL]", "card": "[CARD]"}
    assert kept[0].candidate.fields == {"note": "ask\n[EMAIL]"}
    assert kept[1] == sample("x-1", turns("?", "No."))
    assert "anna@acme.io" in read_samples(run.shard_file(0))[0].answer


def test_a_run_drops_and_counts_contamination_by_set_from_the_recipes_folder(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "maths.jsonl").write_text(json.dumps({"question": QUESTION}))
    filters = [{"type": "contamination", "sets": ["sets/maths.jsonl"]}]
    run = curated_run(tmp_path, [sample("x-0", turns(QUESTION, "72")), sample("x-1", turns("Hi?", "Hi."))], filters)
    assert [one.id for one in read_samples(run.kept_file(0))] == ["x-1"]
    (dropped,) = read_samples(run.dropped_file(0))
    assert dropped.reason == "contamination"
    assert "with sets/maths.jsonl row 1" in dropped.detail
    found = {"sets/maths.jsonl": {"rows": 1, "short": 0, "found": 1, "documents": 1}}
    assert read_json(run.path / "contamination.json") == found


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("form", ["messages", "prompt_completion", "text"])
def test_a_filtered_dataset_is_masked_in_every_column_of_texts(form: str, ending: str, tmp_path: Path) -> None:
    question, answer = "Who is bob@acme.io?", "Call +44 20 7946 0958."
    body: dict[str, Any] = {
        "messages": {"messages": [m.model_dump() for m in turns(question, answer)[1:]]},
        "prompt_completion": {"prompt": question, "completion": answer},
        "text": {"text": f"{question} {answer}"},
    }[form]
    rows = [{"id": "bob@acme.io", **body, "source": "by bob@acme.io", "n": 1}]
    rows.append(
        {"id": "b", **json.loads(json.dumps(body).replace("bob@acme.io", "he").replace("+44 20 7946 0958", "me"))}
    )
    frame = pl.DataFrame([{"source": None, "n": 0, **row} for row in rows])
    file = tmp_path / f"rows.{ending}"
    frame.write_ndjson(file) if ending == "jsonl" else frame.write_parquet(file)
    report = filter_dataset(file, tmp_path / "out", parse_filter_settings([f"filters={PII}"]))
    kept = tmp_path / "out" / f"kept.{ending}"
    out = pl.read_ndjson(kept) if ending == "jsonl" else pl.read_parquet(kept)
    assert report.masked == 1
    assert out["id"].to_list() == ["bob@acme.io", "b"]
    assert out["source"].to_list() == ["by [EMAIL]", None]
    assert out.schema == frame.schema
    shown = json.dumps(out.drop("id").row(0, named=True))
    assert "[EMAIL]" in shown
    assert "[PHONE]" in shown
    assert "acme" not in shown
    assert out.row(1) == frame.row(1)


CALLED = pa.struct([("card", pa.int64()), ("john.smith@gmail.com", pa.string())])


@pytest.mark.parametrize("arguments", [{"card": 4111111111111111}, {"john.smith@gmail.com": "x"}])
def test_a_call_that_is_an_object_is_masked_in_its_keys_and_numbers(arguments: dict[str, Any], tmp_path: Path) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "?"}, call]}) + "\n")
    filter_dataset(tmp_path / "rows.jsonl", tmp_path / "out", parse_filter_settings([f"filters={PII}"]))
    kept = (tmp_path / "out" / "kept.jsonl").read_text()
    assert "4111" not in kept
    assert "john" not in kept


@pytest.mark.parametrize(
    "filters",
    [
        '[{type = "pii", action = "drop"}]',
        '[{type = "exact"}, {type = "pii", action = "drop"}]',
        '[{type = "pii"}, {type = "exact"}]',
        '[{type = "exact"}, {type = "pii"}]',
        '[{type = "pii"}, {type = "length", min_words = 99}]',
    ],
)
def test_found_personal_data_is_in_no_report(filters: str, tmp_path: Path) -> None:
    row = json.dumps({"text": "mail john.smith@gmail.com now"}) + "\n"
    (tmp_path / "rows.jsonl").write_text(row + row)
    report = filter_dataset(tmp_path / "rows.jsonl", tmp_path / "out", parse_filter_settings([f"filters={filters}"]))
    assert report.examples
    for name in ("report.json", "report.html"):
        page = (tmp_path / "out" / name).read_text()
        assert "john" not in page
        assert HIDDEN_TEXT in page or "mail [EMAIL] now" in page


RECIPE = """
name = "x"
family = "constrained_instructions"
samples = 4
{more}
[seeds]
path = "data/seeds/topics.jsonl"
[teachers.main]
model = "fake/writer"
[agents]
critic = false
[[filters]]
{table}
"""


def written(folder: Path, table: str, more: str = "") -> Path:
    file = folder / "recipe.toml"
    file.write_text(RECIPE.format(table=table, more=more))
    return file


@pytest.mark.parametrize(
    ("table", "more", "problem"),
    [
        ('type = "contamination"\nsets = ["none.jsonl"]', "", "filters.0.sets: .*none.jsonl: .* cannot be read"),
        ('type = "language"\nlanguages = ["en", "qq"]', "", "filters.0.languages: qq: not known; known are"),
        ('type = "exact"\nkeep = "longest"', "keep = 2", "filters.0.keep: 'longest' cannot go with a number to keep"),
        (
            'type = "pii"\n[dataset]\nformats = ["messages", "preference"]', "answers_per_seed = 2",
            "filters.0.type: finds nothing in rejected answers",
        ),
        *(
            (f'type = "pii"\n[student]\nobjective = {{ sft = 1.0, {loss} = 1.0 }}', "", "filters.0.type: finds nothing")
            for loss in ("dpo", "kto")
        ),
        ('type = "quality"\nrules = ["gopher"]', "", "filters.0"),
        ('type = "pii"\nkinds = ["name"]', "", "filters.0"),
    ],
)  # fmt: skip
def test_missing_files_of_filters_are_reported_before_a_run(
    table: str, more: str, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=problem):
        load_recipe_plan(str(written(tmp_path, table, more)))


def test_a_run_filters_only_shards_that_are_new_or_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(shard: int, *texts: str) -> None:
        samples = [sample(f"x-{10 * shard + i}", turns("Hi?", text)) for i, text in enumerate(texts)]
        write_samples(run.shard_file(shard), samples)

    def curate() -> list[str]:
        curate_run(run, recipe, [], tmp_path)
        return [one.id for index in run.shards() for one in read_samples(run.kept_file(index))]

    run = RunDir(tmp_path / "run")
    recipe = Recipe.model_validate({"name": "x", "samples": 30, "seeds": {}, "filters": [{"type": "exact"}]})
    rows: list[int] = []
    filter_batch = filter_engine.filter_row_batch
    monkeypatch.setattr(
        filter_engine,
        "filter_row_batch",
        lambda batch, *args: rows.append(batch.content.num_rows) or filter_batch(batch, *args),
    )
    write(0, "one", "two")
    write(1, "two", "three", "four")
    assert curate() == ["x-0", "x-1", "x-11", "x-12"]
    assert curate() == ["x-0", "x-1", "x-11", "x-12"]
    assert rows == [2, 3]
    write(1, "five")
    write(2, "one", "five", "six", "seven")
    assert curate() == ["x-0", "x-1", "x-10", "x-22", "x-23"]
    assert rows == [2, 3, 1, 4]


@pytest.mark.parametrize(
    ("type_", "value", "masked"),
    [
        (pa.dictionary(pa.int32(), pa.string()), "mail john.smith@gmail.com now", "mail [EMAIL] now"),
        (pa.list_(pa.dictionary(pa.int8(), pa.large_string())), ["john.smith@gmail.com"], ["[EMAIL]"]),
        (pa.int64(), 4111111111111111, None),
        (pa.list_(CALLED), [{"card": 4111111111111111, "john.smith@gmail.com": "x"}],
         [{"card": None, "john.smith@gmail.com": None}]),
        (pa.map_(pa.string(), pa.int64()), [("john.smith@gmail.com", 4111111111111111)], [("[EMAIL]", None)]),
        (pa.map_(pa.int64(), pa.string()), [(4111111111111111, "x"), (1, "y")], [(1, "y")]),
    ],
)  # fmt: skip
def test_masked_columns_keep_their_type(type_: pa.DataType, value: Any, masked: Any, tmp_path: Path) -> None:
    text = pa.array(["4111111111111111 john.smith@gmail.com", "No."]).dictionary_encode()
    pq.write_table(pa.table({"text": text, "more": pa.array([value, value], type_)}), tmp_path / "rows.parquet")
    filter_dataset(tmp_path / "rows.parquet", tmp_path / "out", parse_filter_settings([f"filters={PII}"]))
    out = pq.read_table(tmp_path / "out" / "kept.parquet")
    assert out.schema == pq.read_schema(tmp_path / "rows.parquet")
    assert out["text"].to_pylist() == ["[CARD] [EMAIL]", "No."]
    assert out["more"].to_pylist() == [masked, value]


def test_evaluation_sets_next_to_the_recipe_are_part_of_the_runs_identity(tmp_path: Path) -> None:
    (tmp_path / "maths.jsonl").write_text(json.dumps({"question": QUESTION}))
    recipe = str(written(tmp_path, 'type = "contamination"\nsets = ["maths.jsonl"]'))
    before = load_recipe_plan(recipe).sources["maths.jsonl"]
    (tmp_path / "maths.jsonl").write_text(json.dumps({"question": QUESTION + " How many?"}))
    assert load_recipe_plan(recipe).sources["maths.jsonl"] != before
