"""Releases and lineages, with real runs of the scripted teacher."""

import json
import random
import re
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest

from core.config.recipe import ENGLISH_REFERENCE
from core.errors import GateNotMet, RunExists, StoreError, UsageError
from core.hooks import RunHooks
from core.project_files import PROJECT
from core.runs.lineage import Lineage, find_release
from core.runs.records import CollapseRecord, CollapseVerdict, RunManifest
from core.runs.releases import Release, locate_releases, read_release
from core.runs.run_dir import RunDir
from core.storage.atomic_files import hash_file
from flows.data.curated_run import read_dropped_samples, read_finished_samples, read_kept_samples
from flows.evaluate.dataset_assessment import compare_with_earlier_releases
from flows.release.release_creation import create_release
from flows.release.release_gate import find_release_refusals
from flows.rows.dataset_rows import read_dataset_documents
from tests.flows.commands.test_commands import called
from tests.support.lineages import OFF, REAL, lineage, make_release, make_run, write_rows

SIDES = ("train", "validation")


def rows_of(release: Release) -> dict[str, list[str]]:
    return {side: pl.read_parquet(release.dataset / f"{side}.parquet")["id"].to_list() for side in SIDES}


def prompts_of(release: Release) -> dict[str, set[str]]:
    frames = {side: pl.read_parquet(release.dataset / f"{side}.parquet") for side in SIDES}
    return {side: {row[0]["content"] for row in frame["messages"].to_list()} for side, frame in frames.items()}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs whose recipe has two releases; never changed by a test."""
    runs = tmp_path_factory.mktemp("two") / "runs"
    for _ in range(2):
        make_release(runs, "samples=40", REAL)  # enough kept for the metrics
    return runs


@pytest.fixture
def copy_of_two(two: Path, tmp_path: Path) -> Path:
    return shutil.copytree(two.parent, tmp_path / "copy") / "runs"


def test_a_release_holds_the_dataset_of_its_run_with_the_hash_of_every_file(two: Path) -> None:
    first, second = lineage(two).read_verified()
    assert (first.name, second.name) == ("smoke/0", "smoke/1")
    run = RunDir(two / first.manifest.run.run)
    for file in run.dataset.rglob("*"):
        if file.is_file():
            assert hash_file(first.path / file.relative_to(run.path)) == hash_file(file)
    there = {str(p.relative_to(first.path)) for p in first.path.rglob("*") if p.is_file()}
    assert there == {*first.manifest.files, "manifest.json"}
    assert {"lineage.json", "own.parquet", "dataset/train.parquet", "dataset/README.md"} <= there
    modes = {stat.S_IMODE((first.path / name).stat().st_mode) for name in there}
    assert modes == {0o444}


def test_the_next_run_builds_on_the_newest_release_and_takes_its_rows_with_their_sides(two: Path) -> None:
    first, second = lineage(two).read_all()
    assert second.lineage.ancestors == (first.as_parent,)
    before, after = rows_of(first), rows_of(second)
    for side in SIDES:
        assert after[side][: len(before[side])] == before[side], "a side is for good"
    mix = second.lineage.mix
    assert mix.earlier == {"smoke/0": sum(map(len, before.values()))}
    assert mix.own == second.manifest.run.counts.kept
    assert mix.rows == sum(map(len, after.values()))
    for release in (first, second):
        prompts = prompts_of(release)
        assert not prompts["train"] & prompts["validation"]


def test_the_parent_is_part_of_a_runs_identity(two: Path) -> None:
    first, second = lineage(two).read_all()
    runs = [RunDir(two / one.manifest.run.run) for one in (first, second)]
    assert [run.read_parent() for run in runs] == [None, first.as_parent]
    assert first.manifest.run.digest != second.manifest.run.digest


def test_a_run_starts_after_the_seeds_of_its_lineage(two: Path) -> None:
    first, second = lineage(two).read_all()
    assert (first.manifest.seeds, second.manifest.seeds) == (40, 80)
    seeds = [
        [sample.seed.data["topic"] for sample in read_finished_samples(RunDir(two / one.manifest.run.run))]
        for one in (first, second)
    ]
    assert not set(seeds[0]) & set(seeds[1]), "of 178 topics, the second 40 are others"


def test_what_repeats_an_earlier_release_is_dropped_and_names_its_sample(tmp_path: Path) -> None:
    runs, near = tmp_path / "runs", 'filters=[{type="minhash",ngram=1,threshold=0.25,keep="longest"}]'
    first = make_release(runs, near).release
    run = make_run(runs, near)
    ids = {f"smoke/0/{sample.id}" for sample in read_kept_samples(RunDir(runs / first.manifest.run.run))}
    drops = pl.concat(pl.read_parquet(run.dropped_file(shard)) for shard in run.shards())
    repeats = drops.filter(pl.col("duplicate_of").str.starts_with("smoke/0/"))
    assert len(repeats) > 0
    assert set(repeats["duplicate_of"]) <= ids
    assert set(repeats["reason"]) == {"near_duplicate"}
    assert all(origin in detail for origin, detail in repeats.select("duplicate_of", "detail").iter_rows())
    counts = run.read_manifest().counts
    assert counts.kept + counts.dropped + counts.failed == counts.candidates == 24
    assert len([*read_kept_samples(run), *read_dropped_samples(run)]) == 24


def test_a_budget_bounds_the_dataset_and_keeps_the_floor_of_real_rows(copy_of_two: Path, tmp_path: Path) -> None:
    real = write_rows(
        tmp_path / "real.jsonl",
        [
            {"messages": [{"role": "user", "content": f"Q{i}?"}, {"role": "assistant", "content": f"A{i}."}]}
            for i in range(9)
        ],
    )
    table = f'lineage={{policy="budget",budget=20,real="{real}",min_real_share=0.3}}'
    third = make_release(copy_of_two, table).release
    mix, rows = third.lineage.mix, rows_of(third)
    assert mix.rows == sum(map(len, rows.values())) == 20
    assert mix.real == 6
    assert mix.own > 0
    assert all(count > 0 for count in mix.earlier.values())
    assert rows["validation"]
    assert not [name for name in rows["validation"] if name.startswith("real-")], "real rows are only trained on"


def test_a_share_of_real_rows_below_the_minimum_is_reported_and_refused(tmp_path: Path) -> None:
    real = write_rows(tmp_path / "real.jsonl", [{"text": "The rain fell all night upon the roof of the old house."}])
    run = make_run(tmp_path / "runs", OFF, f'lineage={{real="{real}",min_real_share=0.3}}')
    rows = {row["id"]: row["messages"] for row in pl.read_parquet(run.dataset / "train.parquet").to_dicts()}
    assert [turn["content"] for turn in rows["real-000000"]] == [
        "Go on with this text: The rain fell", "all night upon the roof of the old house.",
    ]  # fmt: skip
    with pytest.raises(GateNotMet, match=r"1 of \d+ rows are real .* less than lineage.min_real_share = 0.3"):
        create_release(run)
    assert lineage(tmp_path / "runs").list_generations() == []
    card = (run.dataset / "README.md").read_text()
    assert "all but 1 of them written by a language model" in card


def test_a_prompt_that_was_held_out_stays_held_out(copy_of_two: Path, tmp_path: Path) -> None:
    """A real row that asks what is held out is left out, however it came there."""
    held_out = sorted(prompts_of(lineage(copy_of_two).read_all()[-1])["validation"])[0]
    rows = [{"prompt": prompt, "completion": "Real."} for prompt in (held_out, "Who goes there?")]
    real = write_rows(tmp_path / "real.jsonl", rows)
    third = make_release(copy_of_two, f'lineage.real="{real}"').release
    assert third.lineage.mix.real == 1
    prompts = prompts_of(third)
    assert held_out in prompts["validation"]
    assert not prompts["train"] & prompts["validation"]


# The gate


@pytest.mark.parametrize(
    ("verdict", "gate", "words"),
    [
        ("pass", True, None),
        ("shift", True, None),
        ("inconclusive", True, None),
        ("collapse", True, "the verdict is collapse, nothing compared with x: types fall: train on more real text"),
        (None, True, "not assessed for collapse"),
        ("collapse", False, None),
        (None, False, None),
        ("pass", "strict", None),
        ("shift", "strict", None),
        (
            "inconclusive",
            "strict",
            'x: types fall, and `collapse.gate = "strict"` needs a conclusive one: the dataset has 1 document with a word in',
        ),
        ("collapse", "strict", "the verdict is collapse, nothing compared with x: types fall: train on more real text"),
        (None, "strict", "not assessed for collapse"),
    ],
)
def test_the_gate_refuses_collapse_and_if_strict_what_is_inconclusive(
    verdict: str | None, gate: bool | str, words: str | None
) -> None:
    found = find_release_refusals(assessed(verdict, gate, "x"))
    assert len(found) == (words is not None)
    assert words is None or words in str(found[0])
    assert (
        words is None
        or f"collapse.gate = {'true' if (verdict, gate) == ('inconclusive', 'strict') else 'false'}"
        in found[0].gate_hint
    )


def test_a_plugin_can_refuse_a_release_whatever_the_gate_of_collapse_says(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(RunHooks):
        def list_release_faults(self, manifest: RunManifest) -> Sequence[tuple[str, str]]:
            return [(f"{manifest.run} narrows", "or turn it off")]

    monkeypatch.setattr("flows.release.release_gate.load_hooks", lambda _plugins: [RunHooks(), Refusing()])
    assert list(map(str, find_release_refusals(assessed("collapse", False, "x")))) == ["x-1 narrows; or turn it off"]
    assert len(find_release_refusals(assessed("collapse", True, "x"))) == 2


def assessed(verdict: str | None, gate: bool | str, reference: str | None) -> RunManifest:
    collapse = {"reference": reference, "documents": 1, "tokens": 1, "metrics": [], "evidence": ["types fall"]}
    return RunManifest.model_validate(
        {"run": "x-1", "digest": "1", "started": "", "counts": {"candidates": 1, "kept": 1}, "gate": {"gated": gate},
         "collapse": {**collapse, "verdict": verdict} if verdict else None}
    )  # fmt: skip


@pytest.mark.parametrize("verdict", ["inconclusive", "no repetition"])
def test_without_a_reference_only_the_strict_gate_refuses_what_shows_no_repetition(verdict: str) -> None:
    assert find_release_refusals(assessed(verdict, True, None)) == []
    (refusal,) = find_release_refusals(assessed(verdict, "strict", None))
    assert "set `collapse.reference` to a file of at least 3,000 documents" in refusal.reason
    assert find_release_refusals(assessed("collapse", True, None)) != [], "repetition is collapse"


def test_a_run_without_a_reference_is_compared_with_the_earlier_releases(tmp_path: Path) -> None:
    settings = ("samples=40", "collapse.reference=false")
    for _ in range(2):
        release = make_release(tmp_path / "runs", *settings)
    manifest = make_run(tmp_path / "runs", *settings).read_manifest()
    first = Lineage(release.release.path.parent).read_all()[0].manifest.run
    assert (first.collapse_parent, first.collapse and first.collapse.parent) == (None, None)
    assert manifest.collapse is not None
    assert manifest.collapse_parent is not None
    assert (manifest.collapse.reference, manifest.collapse.parent) == (None, "smoke/1")
    assert (manifest.collapse_parent.reference, manifest.collapse_parent.documents > 0) == ("smoke/1", True)
    assert (
        "Compared with the earlier releases, up to smoke/1"
        in (tmp_path / "runs" / manifest.run / "report.html").read_text()
    )


@pytest.mark.parametrize(
    ("earlier", "verdict"),
    [(lambda rows: rows, CollapseVerdict.inconclusive), (lambda rows: rows[:8] * 20, CollapseVerdict.collapse)],
)
def test_a_collapse_since_the_earlier_releases_is_the_verdict_of_a_run(
    earlier: Callable[[list[str]], list[str]], verdict: CollapseVerdict, tmp_path: Path
) -> None:
    texts = [document.text for document in read_dataset_documents(PROJECT / ENGLISH_REFERENCE)]
    real = random.Random(0).sample(texts, 900)  # in the file they are in the order of the novels
    talks = [[{"role": "assistant", "content": text}] for text in earlier(real[:160])]
    record = CollapseRecord(reference=None, documents=160, tokens=1, metrics=[])
    released = [[{"role": "assistant", "content": text}] for text in real[160:]]
    found = compare_with_earlier_releases(record, talks, released, "mine/3", 7, tmp_path)
    assert found is not None
    assert (record.verdict, found.verdict, record.parent) == (verdict, verdict, "mine/3")
    assert any("compared with mine/3: REPEAT" in sentence for sentence in record.evidence) == (verdict == "collapse")


def test_the_first_small_release_is_marked_inconclusive_and_the_next_run_builds_on_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    where = ("--runs-dir", str(runs))
    first = make_run(runs)
    code, out, _ = called(capsys, "release", first.name, *where)
    assert code == 0
    assert re.search(r"  verdict   inconclusive, \d+ of about 500 documents, no reference; no repetition found\n", out)
    assert "the release is marked so; the dataset has" in out
    (release,) = lineage(runs).read_verified()
    assert (release.manifest.verdict, release.lineage.verdict) == (CollapseVerdict.inconclusive,) * 2
    assert "Collapse verdict: **inconclusive**" in (release.dataset / "README.md").read_text()
    _, out, _ = called(capsys, "lineage", "smoke", *where)
    assert "collapse: inconclusive, " in out
    _, out, _ = called(capsys, "lineage", "smoke", *where, "--json")
    assert [one["inconclusive"] for one in json.loads(out)["generations"]] == [True]
    second = make_run(runs)
    assert second.read_parent() == release.as_parent
    assert set((second.read_manifest().dataset.mix or pytest.fail("no mixture")).earlier) == {"smoke/0"}


def test_a_strict_gate_refuses_the_small_run_and_validate_says_which_gate_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, strict = tmp_path / "runs", 'collapse.gate="strict"'
    run = make_run(runs, strict, REAL, "seed=9")
    code, _, err = called(capsys, "release", run.name, "--runs-dir", str(runs))
    assert code == 3
    assert err.startswith(f"error: {run.name} is not released:\n")
    assert lineage(runs).list_generations() == []
    for settings, words in (
        ((), "release gate: on: a run that shows repetition or few structures"),
        ((REAL,), "release gate: on: a run that shows collapse is not released; one with too few"),
        ((REAL, strict), "release gate: strict: a run that shows collapse, or has too few documents to tell, is not"),
        ((strict,), "release gate: strict: no run is released"),
        ((OFF,), "release gate: off: "),
        (("collapse.structures=false",), "release gate: on: a run that shows repetition (all that is judged"),
    ):
        _, out, _ = called(capsys, "validate", "smoke", *(word for setting in settings for word in ("--set", setting)))
        assert words in out
    code, out, _ = called(capsys, "validate", "smoke", "--set", "collapse.gate=1")
    assert code == 2
    assert 'collapse.gate: must be true, false or "strict", not 1' in out


def test_a_refusal_is_exit_3_with_reason_and_advice_and_a_finished_run_can_be_ungated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    run = make_run(runs)
    manifest = run.read_manifest()
    assert isinstance(manifest.collapse, CollapseRecord)
    manifest.collapse.verdict, manifest.collapse.evidence = CollapseVerdict.collapse, ["REPEAT: text is repeated"]
    manifest.collapse.findings = {"repetition": []}
    run.write_manifest(manifest)
    where = ("--runs-dir", str(runs))
    code, out, err = called(capsys, "release", run.name, *where, "--json")
    assert code == 3
    assert json.loads(out)["release"] is None
    assert len(json.loads(out)["gates"]) == 1
    assert err.startswith(f"error: {run.name} is not released:\n  the verdict is collapse, ")
    assert "; text is repeated: " in err
    assert "collapse.gate = false" in err
    assert make_run(runs, OFF, resume=True) == run, "the gate is no part of a run's identity"
    manifest = run.read_manifest()
    assert isinstance(manifest.collapse, CollapseRecord)
    manifest.collapse.verdict = CollapseVerdict.collapse
    run.write_manifest(manifest)
    code, out, _ = called(capsys, "release", run.name, *where)
    assert code == 0
    assert "gate      off, by collapse.gate = false" in out


# Which run may be released


def test_a_run_that_does_not_build_on_the_newest_is_refused(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    one, other = (make_run(runs, OFF, f"seed={seed}") for seed in (1, 2))
    create_release(one)
    with pytest.raises(UsageError, match="builds on no release, but the newest is smoke/0"):
        create_release(other)
    assert lineage(runs).list_generations() == [0]


def test_a_run_that_did_not_end_in_order_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", OFF)
    manifest = run.read_manifest()
    manifest.state = manifest.state.interrupted
    run.write_manifest(manifest)
    with pytest.raises(UsageError, match=r"is interrupted; resume it with `stillhouse run smoke .*--resume`"):
        create_release(run)


def test_a_file_that_changed_since_the_run_ended_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run = make_run(runs, OFF)
    file = run.dataset / "train.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match=r"train\.parquet: was changed since the run ended"):
        create_release(run)
    assert [p.name for p in lineage(runs).path.iterdir()] == ["lock"]
    make_run(runs, OFF, resume=True)
    assert create_release(run).release.name == "smoke/0"


def test_resuming_continues_the_unfinished_run_and_starts_the_next_after_a_release(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first, second = make_run(runs, OFF), make_run(runs, OFF, "seed=8")
    create_release(second)
    assert make_run(runs, OFF, resume=True) == first, "begun before the release, and not released"
    third = make_run(runs, OFF, "seed=8", resume=True)
    assert third.read_parent() is not None
    with pytest.raises(RunExists):
        make_run(runs, OFF, "seed=8")
    assert make_run(runs, OFF).read_parent() == third.read_parent()


# Damage


def damage(path: Path, how: str) -> None:
    path.chmod(0o644)
    if how == "flip":
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    elif how == "remove":
        path.unlink()
    else:
        (path.parent / "more.parquet").write_bytes(path.read_bytes())


@pytest.mark.parametrize("how", ["flip", "remove", "add"])
@pytest.mark.parametrize("name", ["dataset/train.parquet", "own.parquet", "lineage.json", "manifest.json"])
def test_a_damaged_release_is_refused_wherever_it_is_read(
    name: str, how: str, copy_of_two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = lineage(copy_of_two).read_all()[-1]
    damage(newest.path / name, how)
    for place in (newest.path, newest.dataset):
        with pytest.raises(StoreError):
            list(read_dataset_documents(place))
    with pytest.raises(StoreError):
        make_run(copy_of_two, OFF)
    where = ("--runs-dir", str(copy_of_two))
    code, out, _ = called(capsys, "lineage", "smoke", *where)
    assert code == 1
    assert "DAMAGED" in out
    code, out, _ = called(capsys, "rollback", "smoke", *where)
    assert code == 0
    assert "the newest generation is 0; aside 1" in out
    assert make_run(copy_of_two, OFF, resume=True)


def test_nothing_is_released_on_what_was_damaged_since_the_run(copy_of_two: Path) -> None:
    run = make_run(copy_of_two, OFF)
    damage(lineage(copy_of_two).read_all()[0].dataset / "train.parquet", "flip")
    with pytest.raises(StoreError, match=r"smoke/0/dataset/train\.parquet: is not what was released"):
        create_release(run)
    assert lineage(copy_of_two).list_generations() == [0, 1]
    elsewhere = shutil.copytree(lineage(copy_of_two).read_all()[0].path, copy_of_two / "elsewhere")
    with pytest.raises(
        StoreError, match=r"elsewhere/dataset/train\.parquet: is not .* differs; get the release again$"
    ):
        read_release(elsewhere).verify_files()


def test_a_manifest_with_one_changed_number_is_refused(copy_of_two: Path) -> None:
    file = lineage(copy_of_two).read_all()[0].path / "manifest.json"
    whole = json.loads(file.read_text())
    whole["run"]["counts"]["candidates"] += 1
    whole["run"]["counts"]["dropped"] += 1
    file.chmod(0o644)
    file.write_text(json.dumps(whole))
    with pytest.raises(StoreError, match="its digest differs"):
        read_release(file.parent)


def test_a_lineage_with_a_gap_is_refused(copy_of_two: Path) -> None:
    shutil.rmtree(lineage(copy_of_two).path / "0")
    with pytest.raises(StoreError, match="builds on smoke/0, but the release before it is nothing"):
        lineage(copy_of_two).read_all()


# Going back


def test_a_rollback_sets_generations_aside_and_restores_them(copy_of_two: Path) -> None:
    found = lineage(copy_of_two)
    third = make_release(copy_of_two).release
    found.roll_back(0)
    assert (found.list_generations(), found.list_aside()) == ([0], [1, 2])
    with pytest.raises(
        UsageError, match=r"was released as smoke/2, which was set aside; restore it with `stillhouse rollb"
    ):
        create_release(RunDir(copy_of_two / third.manifest.run.run))
    other = make_release(copy_of_two, "seed=11").release
    assert other.name == "smoke/3", "no number is given twice"
    assert other.lineage.ancestors == third.lineage.ancestors[:1]
    found.roll_back(2)
    assert (found.list_generations(), found.list_aside()) == ([0, 1, 2], [3])
    found.read_verified()
    found.roll_back()
    assert (found.list_generations(), found.list_aside()) == ([0, 1], [2, 3])
    with pytest.raises(UsageError, match=r"smoke/9: there is no such release; .* has 0, 1, and aside 2, 3"):
        found.roll_back(9)
    found.roll_back()
    found.roll_back()
    assert (found.list_generations(), found.list_aside()) == ([], [0, 1, 2, 3])
    with pytest.raises(UsageError, match="there is no release to put aside"):
        found.roll_back()


def test_the_lineage_is_drawn_with_its_metrics_and_what_is_aside(
    copy_of_two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--runs-dir", str(copy_of_two))
    code, out, _ = called(capsys, "lineage", "smoke", *where)
    assert code == 0
    assert out.startswith(f"smoke  2 generations  {locate_releases(copy_of_two)}/smoke")
    assert "└─▶ 1" in out
    assert f"rows {lineage(copy_of_two).read_all()[1].lineage.mix.rows}" in out
    assert "hapax_mass" in out
    assert "aside" not in out
    assert "trend" not in out, "two generations are no trend"
    called(capsys, "rollback", "smoke", "0", *where)
    _, out, _ = called(capsys, "lineage", "smoke", *where)
    assert "set aside by a rollback" in out
    code, out, _ = called(capsys, "lineage", "smoke", *where, "--json")
    record = json.loads(out)
    assert record["newest"] == 0
    assert record["trend"] is None
    assert [(one["generation"], one["aside"], one["parent"]) for one in record["generations"]] == [
        (0, False, None),
        (1, True, 0),
    ]
    assert {"candidate", "reference", "low", "high"} <= set(record["generations"][0]["metrics"]["types"])
    (mine := copy_of_two.parent / "recipe.toml").write_text('name = "smoke"')
    for place in (mine, mine.parent):
        _, by_path, _ = called(capsys, "lineage", str(place), *where, "--json")
        assert by_path == out
    code, _, err = called(capsys, "lineage", "poems", *where)
    assert code == 2
    assert "has smoke" in err


# As INPUT


def test_a_release_is_an_input_by_path_and_by_name(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "releases").symlink_to(locate_releases(two))
    monkeypatch.chdir(tmp_path)
    rows = [one.lineage.mix.rows for one in lineage(two).read_all()]
    places = {"smoke/0": rows[0], "smoke/1": rows[1], "smoke": rows[1], "data/releases/smoke/0": rows[0],
              "data/releases/smoke/0/dataset": rows[0], str(locate_releases(two) / "smoke" / "1"): rows[1]}  # fmt: skip
    found = Counter({place: len(list(read_dataset_documents(Path(place)))) for place in places})
    assert found == places
    code, out, _ = called(capsys, "filter", "smoke/1", "--out", "out", "--set", 'filters=[{type="exact"}]', "--json")
    assert code == 0
    assert json.loads(out)["counts"]["kept"] == rows[1], "nothing in a release repeats anything in it"
    assert find_release(Path("data")) is None
    assert find_release(Path("poems/3")) is None


def test_a_released_dataset_loads_as_datasets_do(two: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    newest: Release = Lineage(locate_releases(two) / "smoke").read_all()[-1]
    loaded = load_dataset(str(newest.dataset), cache_dir=str(tmp_path / "hub"))
    assert sum(rows.num_rows for rows in loaded.values()) == newest.lineage.mix.rows
    assert "of the earlier release `smoke/0`" in (newest.dataset / "README.md").read_text()


def test_nothing_kept_is_nothing_to_release() -> None:
    (refusal,) = find_release_refusals(RunManifest(run="x-1", digest="1", started="", gated=False))
    assert str(refusal) == "no sample was kept, so there is nothing to release"
