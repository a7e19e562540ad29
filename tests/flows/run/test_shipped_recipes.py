"""Every shipped recipe, whole runs of a few samples: once with its scripted teacher, once with the embedded one."""

import json
import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core.runs.records import DRAWN_BY_SEED
from core.runs.run_dir import RunDir
from core.sample import Sample, SampleStatus
from flows.data.curated_run import read_finished_samples, read_kept_rows
from flows.data.dataset_mixture import mix_dataset, read_mixture_sources, split_own_rows
from flows.recipes.recipe_catalog import list_built_in_recipes, load_recipe_plan
from flows.report.run_report import write_run_report
from flows.run import stages
from tests.support.forked import FORKS

pytestmark = pytest.mark.slow

SCRIPTS = {
    "constrained-instructions": "writer",
    "own-prompt": "writer",
    "preference-pairs": "writer",
    "smoke": "writer",
}
FOR_SCRIPTS = {
    "reasoning": ["task.tasks={basic_arithmetic=1,chain_sum=1}", "task.questions=50"],
    "conversations": ["task.kinds={no_digits=1,no_commas=1,max_words=1,no_exclamation=1}"],
}
"""What the nonsense of a script can fulfil now and then."""
SAMPLES = {"code": 6, "library-tools": 8}
"""Where 20 take long: each needs sandboxes."""
NO_DATA = {"topology-study"}
"""Recipes that measure topologies and make nothing to keep."""
DRAWN = ("charts", "documents", "tables")
"""Recipes that ask no teacher."""
IN_GERMAN = {"constrained-german"}
"""No script writes it: `plugins/languages/tests/test_recorded.py` replays what a model wrote."""
RECIPES = sorted(set(list_built_in_recipes()) - NO_DATA - set(DRAWN) - IN_GERMAN)


def made(recipe: str, folder: Path, *settings: str) -> list[Sample]:
    """All samples of a run; it may end with less than was asked for, and never in a failure."""
    ended = FORKS.run("tests.support.produce_run", str(folder), recipe, *settings)
    assert ended.returncode in (0, 1), ended.stderr[-2000:]
    assert "error:" not in ended.stderr
    (found,) = folder.glob("*/recipe.json")
    return list(read_finished_samples(RunDir(found.parent)))


def check_whole(samples: list[Sample]) -> None:
    assert [sample.seed.index for sample in samples] == list(range(len(samples)))
    for sample in samples:
        assert (sample.reason is None) == (sample.state == SampleStatus.kept)
        if sample.state == SampleStatus.kept:
            assert all(verdict.passed for verdict in sample.verdicts if verdict.revision == sample.revisions)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_runs_whole_with_its_scripted_teacher(recipe: str, tmp_path: Path) -> None:
    script = SCRIPTS.get(recipe, load_recipe_plan(recipe).recipe.family)
    settings = [
        f"samples={SAMPLES.get(recipe, 20)}",
        "keep=0",
        f"teachers.main={{model='fake/{script}'}}",
        "max_failed=1.0",
    ]
    settings += ["agents.critic=false", "topology.max_revisions=0", *FOR_SCRIPTS.get(recipe, [])]
    samples = made(recipe, tmp_path, *settings)
    check_whole(samples)
    states = Counter(sample.state for sample in samples)
    assert states[SampleStatus.kept] >= 2
    if recipe != "tool-calls":  # its script makes no mistake; planted ones are in `python -m benchmarks service_calls`
        assert states[SampleStatus.dropped] >= 1, "a script does something wrong now and then"


def package(run: RunDir) -> None:
    """Write the dataset and the report, as the end of a run does."""
    manifest, recipe = run.read_manifest(), run.read_recipe()
    manifest.agents.generator = DRAWN_BY_SEED
    sources = read_mixture_sources(run, recipe, Path())
    own = split_own_rows(read_kept_rows(run), sources, 0.3, recipe)
    parts, manifest.dataset.mix = mix_dataset(own, sources, recipe.lineage, recipe.seed, promoted=False)
    assert stages.write_dataset(run, manifest, recipe, parts, sources.pairs) == []
    samples = list(read_finished_samples(run))
    kept = [sample for sample in samples if sample.state == SampleStatus.kept]
    write_run_report(run, manifest, recipe, kept, [sample for sample in samples if sample not in kept])


@pytest.mark.parametrize("recipe", DRAWN)
def test_a_recipe_runs_whole_without_a_teacher(recipe: str, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="needs the extra `pictures`")
    samples = made(recipe, tmp_path, "samples=6")
    check_whole(samples)
    kept = sum(sample.state == SampleStatus.kept for sample in samples)
    assert kept >= 4
    assert not any(sample.turns for sample in samples)
    (run,) = (RunDir(file.parent) for file in tmp_path.glob("*/recipe.json"))
    package(run)
    rows = pq.read_table(run.dataset / "train.parquet").to_pylist()
    assert rows
    for row in rows:
        (image,) = row["images"]
        assert (run.images / image["path"][:2] / image["path"]).read_bytes() == image["bytes"]
        assert [part["type"] for part in row["messages"][0]["content"]] == ["image", "text"]
    forms = Counter(Path(image["path"]).suffix.removeprefix(".") for row in rows for image in row["images"])
    lines = (run.dataset / "messages" / "train.jsonl").read_text().splitlines()
    assert Counter(json.loads(line)["images"][0].partition(";base64,")[0] for line in lines) == {
        f"data:image/{form}": count for form, count in forms.items()
    }
    assert len(re.findall('<img src="data:image/(?:png|jpeg);base64,', run.report_file.read_text())) == min(6, kept)
    assert "No model wrote" in (run.dataset / "README.md").read_text()


def test_a_recipe_runs_whole_with_the_embedded_teacher(tmp_path: Path) -> None:
    """With a short passage, and whatever it keeps: it is beyond a model of 135M parameters. `benchmarks.families` runs all."""
    teacher = "teachers.main={model='local/smollm2-135m',max_concurrent=2,slot_tokens=4096}"
    settings = ["samples=1", "keep=0", teacher, "max_failed=1.0", "topology.max_revisions=0", "agents.critic=false"]
    settings += ["agents.generator.max_tokens=96", "agents.generator.max_repairs=0", "seeds.chunk_words=60"]
    samples = made("grounded-qa", tmp_path, *settings)
    check_whole(samples)
    assert any(turn.usage.completion_tokens > 0 for sample in samples for turn in sample.turns)
