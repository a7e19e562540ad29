from pathlib import Path

import pytest

from agents.plan import plan_problems
from core.errors import RecipeError, UsageError
from core.loading import load_recipe, parse_settings
from core.recipe import PROJECT, Recipe, differences, identity_of, recipe_digest
from core.student_config import StudentConfig
from flows.recipes import built_in, load, sources

GOOD = 'name = "good"\n[seeds]\npath = "seeds.jsonl"\n'


def problems_of(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, overrides, [plan_problems])
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("name", built_in())
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert load(name).recipe.name == name


def test_a_recipe_needs_only_a_name_and_seeds(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(GOOD)
    recipe = load_recipe(file).recipe
    assert recipe.teachers["main"].model == "local/smollm2-135m"
    assert recipe.topology.kind == "centralized"


def test_all_problems_come_at_once_with_their_path_and_a_suggestion(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        'name = "bad"\nsamples = 0\nsedds = 3\n[seeds]\npath = "x"\n[agents.generator]\ntemprature = 1\n'
        '[[filters]]\ntype = "minhash"\ntreshold = 0.8\n[[filters]]\ntype = "minhsh"\n[teachers.main]\nmodle = "x"\n',
    )
    assert found == [
        "samples: input should be greater than or equal to 1, not 0",
        "teachers.main.model: is missing",
        "teachers.main.modle: unknown key, did you mean `model`?",
        "agents.generator.temprature: unknown key, did you mean `temperature`?",
        "filters.0.treshold: unknown key, did you mean `threshold`?",
        "filters.1.type: 'minhsh' is not one of 'length', 'refusal', 'boilerplate', 'repetition', 'exact', 'minhash', "
        "'novelty', 'semantic', 'quality', 'language', 'contamination', 'pii'",
        "sedds: unknown key, did you mean `seeds`?",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("teachers.main.model=openai/x", "teachers.main: the environment variable OPENAI_API_KEY is not set"),
        ("teachers.main.model=nowhere/x", "unknown provider 'nowhere'"),
        ("teachers.main.model=fake/novelist", "unknown script 'novelist'"),
        ("teachers.main.model=local/missing.gguf", "there is no file 'missing.gguf'"),
        ("agents.critic.teacher=other", "agents.critic.teacher: 'other' is not in [teachers], which has `main`"),
        ("family=poems", "unknown family 'poems'; known are constrained_instructions, "),
        (
            "family=constrained-instructions",
            "unknown family 'constrained-instructions'; did you mean 'constrained_instructions'?",
        ),
        ("task.kinds.max_wrds=1", "unknown kinds max_wrds; did you mean 'max_words'?"),
        ("task.kinds.rhymes=1", "unknown kinds rhymes"),
        ('verifiers=[{type="expression"}]', "verifiers.0.type: there is no check 'expression'"),
        (
            'verifiers=[{type="agreement",solutions=1,agree=2}]',
            "verifiers.0: agree = 2 of solutions = 1 cannot be",
        ),
        ("teachers.main.faults={malformed=0.5}", "only a fake teacher has faults"),
        ("teachers.main.engine={dtype='bfloat16'}", "only vllm/… starts an engine, not 'local/smollm2-135m'"),
        ("keep=6", "keep: 6 kept samples cannot come of at most samples = 5 candidates; raise samples"),
        ("scale.workers=2", "scale: `workers` and `address` need runner"),
        (
            "scale.runner=dask",
            "scale: runner = 'dask' needs either `workers`, to start here, or the `address`",
        ),
        ("samples.more=1", "`samples` is not a table"),
        ("samples", "must be key=value"),
    ],
)
def test_each_mistake_has_a_sentence(tmp_path: Path, override: str, problem: str) -> None:
    text = 'name = "bad"\nsamples = 5\n[seeds]\npath = "x"\n[teachers.main]\nmodel = "local/smollm2-135m"\n'
    assert any(problem in found for found in problems_of(tmp_path, text, override))


@pytest.mark.parametrize(("text", "problem"), [("name = ", "is not valid TOML"), (None, "cannot be read")])
def test_a_file_that_is_no_recipe_says_so(tmp_path: Path, text: str | None, problem: str) -> None:
    file = tmp_path / "recipe.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RecipeError, match=problem):
        load_recipe(file)


def test_set_takes_toml_values_tables_and_places_in_lists() -> None:
    settings = [
        "samples=50",
        "topology.max_revisions=1",
        "filters.4.threshold=0.5",
        "name=plain-text",
        "agents.critic=false",
    ]
    recipe = load("constrained-instructions", settings).recipe
    assert (recipe.samples, recipe.topology.max_revisions, recipe.name) == (50, 1, "plain-text")
    assert recipe.filters[4].model_dump()["threshold"] == 0.5
    assert recipe.agents.critic is None


def test_settings_without_a_recipe_are_validated_too() -> None:
    assert parse_settings(StudentConfig, ["epochs=2"]).epochs == 2
    with pytest.raises(RecipeError, match="epoch: unknown key, did you mean `epochs`"):
        parse_settings(StudentConfig, ["epoch=2"])


def test_the_digest_changes_with_the_recipe_and_its_sources_but_not_with_the_connection_or_the_budget() -> None:
    recipe = load("smoke").recipe
    prompts = {"generator.md": "1"}
    settings = ["teachers.main.max_concurrent=3", "budget.calls=9", "cache.enabled=false", "max_failed=0.9"]
    same = load("smoke", [*settings, 'scale={runner="dask",workers=2}']).recipe
    other = load("smoke", ["seed=8"]).recipe
    assert recipe_digest(recipe, prompts) == recipe_digest(same, prompts)
    assert recipe_digest(recipe, prompts) != recipe_digest(other, prompts)
    assert recipe_digest(recipe, prompts) != recipe_digest(recipe, {"generator.md": "2"})
    unlike = differences(identity_of(recipe, prompts), identity_of(other, prompts))
    assert [str(difference) for difference in unlike] == ["recipe.seed: 7 there, 8 here"]


def test_a_run_of_other_seeds_is_another_run(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nseeds.path = "mine.jsonl"\nteachers.main.model = "fake/writer"\n'
    )
    seeds = tmp_path / "mine.jsonl"
    seeds.write_text('{"topic": "bees", "words": ["hive", "honey"]}\n')
    before = sources(load(str(tmp_path / "mine.toml")))
    seeds.write_text('{"topic": "tea", "words": ["cup", "leaf"]}\n')
    after = sources(load(str(tmp_path / "mine.toml")))
    assert [difference.where for difference in differences({"s": before}, {"s": after})] == ["s.mine.jsonl"]
    seeds.unlink()
    with pytest.raises(UsageError, match=r"mine\.jsonl: cannot be read: No such file"):
        sources(load(str(tmp_path / "mine.toml")))


def test_a_budget_of_money_needs_prices(tmp_path: Path) -> None:
    text = 'name = "x"\nseeds.path = "x"\n[teachers.main]\nmodel = "openai/m"\nbase_url = "http://localhost:1/v1"\n'
    problem = "teachers.main: its price is unknown, so budget.cost cannot hold; set input_price and output_price"
    assert problem in problems_of(tmp_path, text, "budget.cost=1.5")
    (tmp_path / "recipe.toml").write_text(text + "input_price = 0.1\noutput_price = 0.4\n")
    assert load(str(tmp_path / "recipe.toml"), ["budget.cost=1.5"]).recipe.teachers["main"].prices() == (0.1, 0.4)


def test_a_resolved_recipe_reads_back_the_same() -> None:
    recipe = load("constrained-instructions").recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_ballot_needs_its_critic() -> None:
    with pytest.raises(RecipeError, match=r"agents\.critic: an independent topology needs one"):
        load("smoke", ["topology.kind=independent", "agents.critic=false"])


def test_the_recipe_in_the_readme_is_valid(tmp_path: Path) -> None:
    readme = (PROJECT / "README.md").read_text()
    file = tmp_path / "mine.toml"
    blocks = [part.split("```")[0] for part in readme.split("```toml\n")[1:]]
    file.write_text(next(block for block in blocks if 'name = "mine"' in block))
    assert load(str(file)).recipe.teachers["main"].base_url == "http://localhost:8000/v1"


def test_a_runs_own_student_cannot_learn_from_pairs(tmp_path: Path) -> None:
    (found,) = problems_of(tmp_path, GOOD + '[student]\nobjective = "dpo"\n')
    assert found.startswith("student.objective: a run's own student learns from what is kept")
