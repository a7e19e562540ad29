import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core.config.loading import load_recipe, parse_settings
from core.config.recipe import Recipe, build_recipe_identity, list_differences, recipe_digest
from core.config.students import StudentConfig, find_start_fault
from core.errors import RecipeError, UsageError
from core.project_files import PROJECT
from flows.recipes.recipe_catalog import list_built_in_recipes, load_recipe_plan


def problems_of(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe_plan(str(file), overrides)
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.whole
@pytest.mark.parametrize("name", list_built_in_recipes())
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert load_recipe_plan(name).recipe.name == name


def test_all_problems_come_at_once_with_their_path_and_a_suggestion(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        'name = "bad"\nsamples = 0\nsedds = 3\n[seeds]\npath = "x"\n[agents.generator]\ntemprature = 1\n'
        '[[filters]]\ntype = "minhash"\ntreshold = 0.8\n[[filters]]\ntype = "minhsh"\n[teachers.main]\nmodle = "x"\n',
    )
    found = [
        problem.partition(", boilerplate")[0] for problem in found
    ]  # without the rest of the names, and of plugins
    assert found == [
        "samples: input should be greater than or equal to 1, not 0",
        "teachers.main.model: is missing",
        "teachers.main.modle: unknown key, did you mean `model`?",
        "agents.generator.temprature: unknown key, did you mean `temperature`?",
        "filters.0.treshold: unknown key, did you mean `threshold`?",
        "filters.1.type: unknown filter 'minhsh'; did you mean 'minhash'? known are length, refusal",
        "sedds: unknown key, did you mean `seeds`?",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("teachers.main.model=openai/x", "teachers.main: the environment variable OPENAI_API_KEY is not set"),
        ("teachers.main.model=anthropic/x", "teachers.main: the environment variable ANTHROPIC_API_KEY is not set"),
        (
            "teachers.main={model='gemini/x',api_key_env='MINE'}",
            "teachers.main: the environment variable MINE is not set",
        ),
        ("teachers.main.extra={n=2}", "teachers.main.extra: n is fixed, since a budget depends on it"),
        ("teachers.main.drop=['max_tokens']", "teachers.main.drop: max_tokens is fixed"),
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
        ("teachers.main={model='fake/writer',extra={malformd=0.5}}", "teachers.main.extra.malformd: unknown key"),
        ("teachers.main.engine={dtype='bfloat16'}", "only vllm/… starts an engine, not 'local/smollm2-135m'"),
        (
            "teachers.main={model='openai/m',base_url='http://h',threads=2}",
            "only local/… is llama.cpp, not 'openai/m'",
        ),
        ("teachers.main={model='vllm/m',threads=2}", "only local/… is llama.cpp, not 'vllm/m'"),
        (
            "teachers.main={model='openai/m',base_url='http://h',draft='ngram'}",
            "teachers.main: draft is for local/… and vllm/… only, not for openai/m; remove it",
        ),
        (
            "teachers.main.draft=ngram",
            "teachers.main: draft needs logprobs = false: llama.cpp returns no probability of a token",
        ),
        ("teachers.main.draft=''", "teachers.main.draft: string should have at least 1 character"),
        (
            "teachers.main={model='local/smollm2-135m',draft='hf:o/r:x.gguf'}",
            "draft = 'hf:o/r:x.gguf': a draft is not downloaded; name a student's folder, a file or ngram",
        ),
        (
            "teachers.main={model='vllm/m',draft='x.gguf'}",
            "draft = 'x.gguf': vLLM drafts with a folder, not with a GGUF file; name the folder",
        ),
        (
            "teachers.main={model='vllm/m',draft='ngram',engine={speculative-config='{}'}}",
            "draft and engine.speculative_config are two drafts for one teacher; remove one of them",
        ),
        (
            "teachers.main={model='local/smollm2-135m',draft='gone',logprobs=false}",
            "teachers.main.draft: there is no file or folder 'gone' in the recipe's folder or the working directory",
        ),
        ("teachers.main.model=local/hf:owner:x.gguf", "'hf:owner:x.gguf' is not `hf:OWNER/REPO:FILE.gguf`"),
        ("keep=6", "keep: at most samples = 5 candidates cannot give 6 kept samples; raise samples, or lower keep"),
        ("samples.more=1", "`samples` is not a table"),
        ("samples", "must be key=value"),
    ],
)
def test_each_mistake_has_a_sentence(tmp_path: Path, override: str, problem: str) -> None:
    text = 'name = "bad"\nsamples = 5\n[seeds]\npath = "x"\n[teachers.main]\nmodel = "local/smollm2-135m"\n'
    assert any(problem in found for found in problems_of(tmp_path, text, override))


DEEP = {
    "lists": "a = " + "[" * 100_000,
    "closed lists": f"a = {'[' * 300}{']' * 300}",
    "tables": "a = " + "{a = " * 30_000,
    "parts": f"a{'.a' * 100_000} = 1",
    "parts in a table": f"x = {{ a{'.a' * 100_000} = 1 }}",
    "quoted parts": 'a."\\""' + '."\\"" ' * 20_000 + " = 1",
    "a table's parts": f"[a{' . b' * 30_000}]",
}
"""Each took minutes, or ended in a RecursionError, of now or of the first function that follows the levels."""


@pytest.mark.attack(
    "a recipe of 100,000 brackets, or of a key of 100,000 parts",
    "refused: 64 levels, 256 kB",
)
@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_a_recipe_has_few_levels(text: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(f'name = "deep"\n{text}\n')
    with pytest.raises(RecipeError, match="more than 64 levels"):
        load_recipe(file)
    key, _, value = text.partition(" = ")
    with pytest.raises(RecipeError) as caught:
        parse_settings(StudentConfig, [f"{key}={value}"])
    assert len(str(caught.value)) < 1_000


def test_set_takes_toml_values_tables_and_places_in_lists() -> None:
    settings = [
        "samples=50",
        "topology.max_revisions=1",
        "filters.4.threshold=0.5",
        "name=plain-text",
        "agents.critic=false",
    ]
    recipe = load_recipe_plan("constrained-instructions", settings).recipe
    assert (recipe.samples, recipe.topology.max_revisions, recipe.name) == (50, 1, "plain-text")
    assert recipe.filters[4].model_dump()["threshold"] == 0.5
    assert recipe.agents.critic is None


def test_a_list_with_a_wrong_element_is_one_problem() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe_plan("own-prompt", ["task.turns=[99]"])
    assert [problem.where for problem in caught.value.problems] == ["task.turns.0"]


def test_the_digest_changes_with_the_recipe_and_its_sources_but_not_with_the_connection_or_the_budget() -> None:
    recipe = load_recipe_plan("smoke").recipe
    prompts = {"generator.md": "1"}
    own = "model='local/smollm2-135m',logprobs=false"
    undrafted = load_recipe_plan("smoke", [f"teachers.main={{{own}}}"]).recipe
    drafting = load_recipe_plan("smoke", [f"teachers.main={{{own},draft='ngram'}}"]).recipe
    assert recipe_digest(undrafted, {}) == recipe_digest(drafting, {}), "replies with a draft are the same"
    settings = ["teachers.main.max_concurrent=3", "budget.calls=9", "cache_mb=0", "max_failed=0.9"]
    same = load_recipe_plan("smoke", settings).recipe
    other = load_recipe_plan("smoke", ["seed=8"]).recipe
    assert recipe_digest(recipe, prompts) == recipe_digest(same, prompts)
    assert recipe_digest(recipe, prompts) != recipe_digest(other, prompts)
    assert recipe_digest(recipe, prompts) != recipe_digest(recipe, {"generator.md": "2"})
    unlike = list_differences(build_recipe_identity(recipe, prompts), build_recipe_identity(other, prompts))
    assert [str(difference) for difference in unlike] == ["recipe.seed: 7 there, 8 here"]


def with_teacher(**teacher: object) -> Recipe:
    return Recipe.model_validate({"name": "x", "seeds": {"path": "x"}, "teachers": {"main": teacher}})


@pytest.mark.attack(
    "a run is resumed with another endpoint",
    "another run",
)
def test_a_run_that_asks_another_endpoint_is_another_run_and_its_spelling_does_not_matter() -> None:
    here = with_teacher(model="openai/m", base_url="http://localhost:8000/v1")
    there = with_teacher(model="openai/m", base_url="http://localhost:8001/v1")
    assert recipe_digest(here, {}) != recipe_digest(there, {})
    unlike = list_differences(build_recipe_identity(here, {}), build_recipe_identity(there, {}))
    assert [problem.where for problem in unlike] == ["recipe.teachers.main.base_url"]
    respelled = with_teacher(model="openai/m", base_url="HTTP://LocalHost:8000/v1//", api_key_env="OTHER")
    assert recipe_digest(here, {}) == recipe_digest(respelled, {})
    default = with_teacher(model="openai/m")
    assert recipe_digest(default, {}) == recipe_digest(
        with_teacher(model="openai/m", base_url="https://api.openai.com:443/v1/"), {}
    )
    own = with_teacher(model="local/smollm2-135m", base_url="http://localhost:8000/v1")
    assert recipe_digest(own, {}) == recipe_digest(with_teacher(model="local/smollm2-135m"), {})


def test_other_weights_under_the_name_of_a_teachers_file_make_another_run(tmp_path: Path) -> None:
    weights, found = tmp_path / "mine.gguf", []
    for content in (b"GGUF 1", b"GGUF 2", b"GGUF 2"):
        weights.write_bytes(content)
        found.append(load_recipe_plan("smoke", [f"teachers.main={{model='local/{weights}'}}"]).sources)
    assert found[0].keys() == found[1].keys()
    assert found[0] != found[1] == found[2]


def test_a_run_of_other_seeds_is_another_run(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nseeds.path = "mine.jsonl"\nteachers.main.model = "fake/writer"\n'
    )
    seeds = tmp_path / "mine.jsonl"
    seeds.write_text('{"topic": "bees", "words": ["hive", "honey"]}\n')
    before = load_recipe_plan(str(tmp_path / "mine.toml")).sources
    seeds.write_text('{"topic": "tea", "words": ["cup", "leaf"]}\n')
    after = load_recipe_plan(str(tmp_path / "mine.toml")).sources
    assert [difference.where for difference in list_differences({"s": before}, {"s": after})] == ["s.mine.jsonl"]
    seeds.unlink()
    with pytest.raises(UsageError, match=r"mine\.jsonl: cannot be read: No such file"):
        _ = load_recipe_plan(str(tmp_path / "mine.toml")).sources


def test_a_budget_of_money_needs_prices(tmp_path: Path) -> None:
    text = 'name = "x"\nseeds.path = "x"\n[teachers.main]\nmodel = "openai/m"\nbase_url = "http://localhost:1/v1"\n'
    problem = (
        "teachers.main: its price is unknown, so budget.cost cannot hold; set input_price and output_price, or list the model in "
        "a prices.toml next to the recipe"
    )
    assert problem in problems_of(tmp_path, text, "budget.cost=1.5")
    (tmp_path / "recipe.toml").write_text(text + "input_price = 0.1\noutput_price = 0.4\n")
    prices = load_recipe_plan(str(tmp_path / "recipe.toml"), ["budget.cost=1.5"]).recipe.teachers["main"].prices()
    assert prices == (0.1, 0.4, 0.1, 0.1, 0.4)


def test_a_ballot_needs_its_critic() -> None:
    with pytest.raises(RecipeError, match=r"agents\.critic: an independent topology needs a critic"):
        load_recipe_plan("smoke", ["topology.kind=independent", "agents.critic=false"])


@pytest.mark.parametrize(
    ("page", "before"),
    [("README.md", 'name = "mine"\nextends = "constrained-instructions"\n'), ("docs/teachers.md", "")],
)
def test_the_recipe_of_a_page_is_valid(page: str, before: str, tmp_path: Path) -> None:
    """The first one; README's is added to a recipe that `new` wrote."""
    file = tmp_path / "mine.toml"
    file.write_text(before + (PROJECT / page).read_text().split("```toml\n")[1].split("```")[0])
    recipe = load_recipe_plan(str(file)).recipe
    assert recipe.teachers["main"].base_url == "http://localhost:8000/v1"
    assert (recipe.agents.critic is None) == bool(before)


def test_false_switches_off_what_a_recipe_or_its_base_trains_with(tmp_path: Path) -> None:
    def student(recipe: str, *settings: str) -> StudentConfig:
        found = load_recipe_plan(recipe, list(settings)).recipe.student
        assert found
        return found

    built_in = student("constrained-instructions")
    assert built_in.replay
    assert built_in.average
    assert built_in.evaluation
    set_off = student(
        "constrained-instructions", *(f"student.{key}=false" for key in ("replay", "average", "evaluation"))
    )
    assert (set_off.replay, set_off.average, set_off.evaluation) == (None, None, None)
    off = dict.fromkeys(("evaluation", "replay", "average", "lora", "steps"), False)
    assert StudentConfig.model_validate(off) == StudentConfig(), "as distill reads its settings"
    extending = tmp_path / "mine.toml"
    extending.write_text(
        'name = "mine"\nextends = "constrained-instructions"\n[student]\nstart = "random"\nreplay = false\naverage = false\n'
    )
    assert student(str(extending)) == built_in.model_copy(update={"start": "random", "replay": None, "average": None})
    with pytest.raises(RecipeError, match="replay = false and average = false where a base has it"):
        load_recipe_plan("constrained-instructions", ["student.start=random"])


LLAMA = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
HYBRID = {"model_type": "qwen3_5_text"}


def find_fault(folder: Path, settings: dict[str, Any], student: dict[str, Any]) -> str | None:
    (folder / "config.json").write_text(json.dumps(settings))
    return find_start_fault(StudentConfig(start=str(folder), **student))


@pytest.mark.parametrize("text", ["[]", "{", '"llama"'])
def test_a_folder_without_a_configuration_is_no_start(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    assert find_start_fault(StudentConfig(start=str(tmp_path))) == "has a config.json that is no JSON object"
    assert find_start_fault(StudentConfig(start=str(tmp_path / "elsewhere"))) is None


@pytest.mark.parametrize(("name", "value"), [("lora", {}), ("replay", {}), ("average", 0.5)])
def test_new_weights_have_nothing_to_keep(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"{name}: the weights of start = 'random' are untrained"):
        StudentConfig.model_validate({"start": "random", name: value})
