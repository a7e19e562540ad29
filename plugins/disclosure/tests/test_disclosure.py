"""Matches, the exact test and its design, and whole runs of which one copies its documents."""

import json
import shutil
from html import escape
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agents.planning.seeds import RunSeeds
from core.errors import RecipeError, RunFailed, UsageError
from core.runs.run_dir import RunDir
from core.sample import SampleStatus
from flows.data.curated_run import read_finished_samples
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.release.release_gate import find_release_refusals
from plugins.disclosure.config import NAME
from plugins.disclosure.disclosure import CERTAIN, DisclosureRecord, measure_disclosure
from plugins.disclosure.held_back import draw_held_back, draw_splits, find_held_back
from plugins.disclosure.hooks import measure_run_disclosure, read_leaks
from plugins.disclosure.matching import Match, find_matches
from tests.flows.commands.test_commands import called
from tests.support.lineages import OFF, make_run, write_rows

TEACHER = "teachers={main={model='fake/grounded_qa'}}"
WORDS = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in ("n", "r", "st", "x")]


@pytest.mark.parametrize(
    ("row", "document", "kinds"),
    [
        ("Ask ADA@post.net now", "Write to ada@post.net.", ("email",)),
        ("Call +44 20 7946 0018.", "the line (020) 7946 0018 or +44-20-7946-0018", ("number",)),
        ("It ran 1914-1918, from 2024-05-12", "It ran 1914-1918, from 2024-05-12", ()),
        ("Order RK-4107-Z is late", "order RK-4107-Z", ("code",)),
        ("Ada Brandt came", "then Ada Brandt came", ("name",)),
        ("Canal Lock opens", "Canal Lock\nIt opens.", ()),
        ("one two three four five six seven eight", "One, two three four: five six seven eight!", ("phrase",)),
        ("one two three four five six seven", "one two three four five six seven", ()),
    ],
)
def test_what_a_row_shares_with_one_document_is_found(row: str, document: str, kinds: tuple[str, ...]) -> None:
    found = find_matches([row], ["nothing", document])
    assert found == ([Match(0, 1, kinds)] if kinds else [])


def test_what_several_documents_have_is_of_none() -> None:
    assert find_matches(["ask ada@post.net"], ["ada@post.net", "x", "ada@post.net"]) == []
    assert find_matches(["then Ada Brandt came"], ["then Ada Brandt came"], identifiers=True) == []


def test_every_split_is_as_likely_and_balanced() -> None:
    sizes = {f"{number}.txt": 1 + number % 5 for number in range(16)}
    held = [draw_held_back(sizes, 0.5, seed) for seed in range(2000)]
    shares = [sum(sizes[name] for name in one) / sum(sizes.values()) for one in held]
    assert {len(one) for one in held} == {8}
    assert max(abs(share - 0.5) for share in shares) <= 0.1
    drawn = draw_splits([sizes[name] for name in sorted(sizes)], 0.5, 20_000, 1).mean(axis=0)
    for name, share in zip(sorted(sizes), drawn, strict=True):
        assert abs(sum(name in one for one in held) / 2000 - share) < 0.06, "5 standard errors"


def test_a_split_that_cannot_be_tested_is_refused() -> None:
    with pytest.raises(UsageError, match=r"12 documents can be split in 924 ways"):
        draw_held_back(dict.fromkeys(map(str, range(12)), 1), 0.5, 1)
    with pytest.raises(UsageError, match=r"big has 90 of 109 passages"):
        draw_held_back({**dict.fromkeys(map(str, range(19)), 1), "big": 90}, 0.5, 1)


def simulate(seed: int, leaks: int) -> DisclosureRecord:
    """Rows and documents share a vocabulary of 140 words; rows quote eight words of used documents."""
    rng = Random(seed)
    documents = {f"{number:02d}": [" ".join(rng.choices(WORDS, k=60)) for _ in range(3)] for number in range(20)}
    held = draw_held_back({name: 3 for name in documents}, 0.5, seed)
    used = sorted(documents.keys() - held)
    rows = [" ".join(rng.choices(WORDS, k=30)) for _ in range(100)]
    for number in range(leaks):
        rows[number] += " " + " ".join(documents[rng.choice(used)][1].split()[20:30])
    # Documents and rows have the same names at random, more in some documents than in others.
    for passages in documents.values():
        passages.append(" ".join(f"then Ada N{rng.randrange(60)} came" for _ in range(rng.randrange(8))))
    rows = [f"{row} Ada N{rng.randrange(60)}" for row in rows]
    return measure_disclosure(rows, documents, held, share=0.5, seed=seed)[0]


def test_chance_is_no_leak_and_leaks_are_found() -> None:
    chance = [simulate(seed, 0) for seed in range(150)]
    assert sum(one.p <= 0.2 for one in chance) <= 45, "expected at most 30, standard deviation 5"
    assert sum(one.leaks for one in chance) <= 6, "more has a probability of 0.001 at 1 %"
    assert any(one.used_rows for one in chance), "names are shared by chance"
    assert all(simulate(seed, 25).leaks for seed in range(20))


def test_one_document_proves_nothing_however_often_it_is_copied() -> None:
    documents = {str(number): [f"{word} " * 3 + "came"] for number, word in enumerate(WORDS[:20])}
    documents["3"] = ["write to ada@post.net"]
    held = draw_held_back(dict.fromkeys(documents, 1), 0.5, 5)
    if "3" in held:
        held = frozenset(documents) - held
    record, found = measure_disclosure(["ada@post.net"] * 50, documents, held, share=0.5, seed=1)
    assert (record.used_rows, record.leaks, len(found)) == (50, False, 50)
    assert record.p > 0.3
    quoting, _ = measure_disclosure(["ada@post.net"] * 50, documents, held, share=0.5, seed=1, quotes=True)
    assert quoting.leaks, "where an answer may quote, each identifier counts"
    assert not measure_disclosure(["x"] * 50, documents, held, share=0.5, seed=1, quotes=True)[0].leaks


@pytest.fixture(scope="module")
def copying(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run whose rows contain their passages, judged as if they should not."""
    runs = tmp_path_factory.mktemp("runs")
    return make_run(runs, OFF, TEACHER, "disclosure.quotes=false", "samples=40", recipe="grounded-qa")


@pytest.mark.slow
def test_rows_that_copy_are_named_and_not_released(copying: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = copying.read_manifest()
    record = manifest.get(NAME, DisclosureRecord)
    assert record is not None
    assert record.p <= CERTAIN
    assert (record.leaks, record.used_rows, record.held_back_rows, record.mixed) == (True, record.rows, 0, 0)
    held = find_held_back(load_recipe_plan("grounded-qa", [TEACHER, "disclosure.quotes=false"]))
    assert held is not None
    assert record.held_back == len(held.documents) == 8
    made = list(read_finished_samples(copying))
    assert len(made) == 40
    assert {sample.seed.data["source"] for sample in made}.isdisjoint(held.documents)
    kept = {sample.id for sample in made if sample.state == SampleStatus.kept}
    leaks = read_leaks(copying)
    assert {leak.row for leak in leaks} == kept
    assert {leak.document for leak in leaks}.isdisjoint(held.documents)
    assert "documents leak: phrases of" in str(*find_release_refusals(manifest))
    runs = ["--runs-dir", str(copying.path.parent)]
    code, out, _ = called(capsys, "disclosure", copying.name, "--rows", "2", *runs)
    assert (code, out.count("phrase"), f"and {len(leaks) - 2} more" in out) == (3, 3, True)
    code, out, _ = called(capsys, "disclosure", copying.name, "--json", *runs)
    assert (code, json.loads(out)["leaks"]) == (3, True)
    assert f"<p>{escape(record.verdict)}.</p>" in (copying.path / "report.html").read_text()
    code, _, err = called(capsys, "release", copying.name, *runs)
    assert (code, "documents leak: phrases of" in err) == (3, True)


@pytest.mark.slow
def test_a_family_that_quotes_is_judged_by_its_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, OFF, TEACHER, "disclosure.hold_back=0.5", recipe="grounded-qa")
    record = run.read_manifest().get(NAME, DisclosureRecord)
    assert record is not None
    assert (record.quotes, record.leaks, find_release_refusals(run.read_manifest())) == (True, False, [])
    code, out, _ = called(capsys, "disclosure", run.name, "--runs-dir", str(tmp_path))
    assert (code, "no leak is certain: addresses, numbers or codes in answers of 0 of 9" in out) == (0, True)


@pytest.mark.slow
def test_changed_documents_and_other_runs_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], copying: RunDir
) -> None:
    other = RunDir(shutil.copytree(copying.path, tmp_path / "copy"))
    stored = json.loads((other.path / "recipe.json").read_text())
    stored["identity"]["sources"]["data/documents"] = "0" * 16
    (other.path / "recipe.json").write_text(json.dumps(stored))
    with pytest.raises(RunFailed, match=r"documents: is not what the run was made of"):
        measure_run_disclosure(other)
    plain = make_run(tmp_path / "runs", OFF)
    code, _, err = called(capsys, "disclosure", plain.name, "--runs-dir", str(tmp_path / "runs"))
    assert (code, "no document was held back" in err) == (2, True)


def test_a_run_without_rows_says_so_and_an_unfinished_one_is_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(
        tmp_path,
        OFF,
        TEACHER,
        "disclosure.hold_back=0.5",
        "filters=[{type='length',min_words=1999}]",
        recipe="grounded-qa",
    )
    arguments = ("disclosure", run.name, "--runs-dir", str(tmp_path))
    code, _, err = called(capsys, *arguments)
    assert (code, f"kept no row to compare with documents; `stillhouse show {run.path}`" in err) == (2, True)
    manifest = run.read_manifest()
    manifest.collapse = None
    run.write_manifest(manifest)
    code, _, err = called(capsys, *arguments)
    assert (code, "was not assessed yet; continue the run with --resume" in err) == (2, True)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["task.distractors=2"], r"disclosure: task\.distractors shows passages of held-back documents too"),
        (["focus={weights='w.json'}"], r"disclosure: another table chooses seeds too"),
        (["seeds={recording='recorded.jsonl'}"], r"disclosure: compares rows with documents"),
        (
            ["seeds={path='data/seeds/topics.jsonl'}"],
            r"grounded_qa shows rows of the seeds file in the prompts of others",
        ),
        (["disclosure.hold_back=0.6"], r"disclosure\.hold_back: .*0\.5"),
    ],
)
def test_what_cannot_be_compared_is_a_problem_of_the_recipe(settings: list[str], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        load_recipe_plan("grounded-qa", [TEACHER, "disclosure.hold_back=0.5", *settings])


def test_an_evaluation_asks_about_all_documents() -> None:
    plan = load_recipe_plan("grounded-qa", [TEACHER, "disclosure.hold_back=0.5", "samples=200"])
    held, seeds = find_held_back(plan), RunSeeds(plan, "0" * 16)
    assert held is not None
    assert not {seed.data["source"] for seed in seeds} & held.documents
    assert {seed.data["source"] for seed in seeds.without_choice()} & held.documents


def test_rows_of_a_seeds_file_are_held_back_like_documents(tmp_path: Path) -> None:
    """As logs and captions are: a text in each row."""
    rows = [
        {"category": "x", "caption": f"photo {n}: {' '.join(Random(n).choices(WORDS, k=12))}, write to a{n}@post.net"}
        for n in range(40)
    ]
    write_rows(tmp_path / "captions.jsonl", [*rows, rows[0]])
    settings = ["disclosure.hold_back=0.5", f"seeds={{path='{tmp_path / 'captions.jsonl'}'}}", "samples=200"]
    plan = load_recipe_plan("own-prompt", [TEACHER.replace("grounded_qa", "writer"), *settings])
    held = find_held_back(plan)
    assert held is not None
    assert (len(held.source.passages), len(held.documents)) == (40, 20), (
        "the row that repeats is no document of its own"
    )
    seeds = RunSeeds(plan, "0" * 16)
    used = {held.source.find_name(seed.data) for seed in seeds}
    assert used == held.source.passages.keys() - held.documents
    replies = [seed.data["caption"] for seed in seeds]
    record, _ = measure_disclosure(replies, held.source.passages, held.documents, share=0.5, seed=plan.recipe.seed)
    assert (record.leaks, record.held_back_rows, record.used_found) == (True, 0, 20)
    shuffled = [caption["caption"] for caption in Random(1).choices(rows, k=200)]
    record, _ = measure_disclosure(shuffled, held.source.passages, held.documents, share=0.5, seed=plan.recipe.seed)
    assert not record.leaks, "control: rows of both halves alike"


def test_rows_are_documents_by_the_text_that_differs(tmp_path: Path) -> None:
    """A longer text that all rows have, a list in its place and a row that repeats with other text are no obstacles."""
    rows: list[dict[str, Any]] = [
        {"system": "You answer the letters of our customers. " * 9, "text": f"letter {n}, about an order"}
        for n in range(40)
    ]
    rows += [{"text": ["two", "parts"], "system": "-"}, {**rows[0], "note": "another note"}]
    write_rows(tmp_path / "logs.jsonl", rows)
    settings = ["disclosure.hold_back=0.5", f"seeds={{path='{tmp_path / 'logs.jsonl'}'}}"]
    held = find_held_back(load_recipe_plan("own-prompt", [TEACHER.replace("grounded_qa", "writer"), *settings]))
    assert held is not None
    assert (held.source.column, len(held.source.passages)) == ("text", 41)
    assert "another note" in "".join(held.source.passages["line 1"])
