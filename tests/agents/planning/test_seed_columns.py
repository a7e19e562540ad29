"""Every column of a seed can be placed in every prompt, and every check sees it, in every family."""

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pytest

import prompts
from agents.families import list_families
from agents.families.base import RecipeFamily
from agents.planning.rubrics import asks_for_quotes, build_review_schema, find_rubrics
from agents.planning.seeds import RunSeeds
from core.config.teachers import TeacherConfig
from core.errors import RecipeError, UsageError
from core.project_files import PROJECT
from core.sample import RejectionReason, SampleStatus, TokenUsage
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import ChargeAccount, TeacherQuestion, TeacherReply
from teachers.fake.fake_teacher import FakeTeacher
from tests.support.colored_pictures import draw_square
from tests.support.scripted_teacher import ScriptedTeacher, build_test_seeds, produce_scripted

SEEDS = PROJECT / "data" / "seeds"
FAMILIES = {family.name: family for family in list_families()}
ROWS: dict[str, dict[str, Any]] = {
    "constrained_instructions": {"topic": "bees", "words": ["hive", "honey"]},
    "conversations": {"topic": "bees", "words": ["hive", "honey"]},
    "arithmetic": {"story": "a bakery"},
    "reasoning": {"question": "How much is 2 + 3?", "answer": "5"},
    "instructions": {"instruction": "Say why ice floats."},
    "code": {"idea": "add two numbers", "category": "numbers", "level": "easy"},
    "extraction": json.loads((SEEDS / "extraction_schemas.jsonl").read_text().partition("\n")[0]),
    "grounded_qa": {
        "text": "The lighthouse was built in 1871. Its lamp burns oil, and a keeper lives in it all year. " * 3
    },
    "own_prompt": {"situation": "a flat tire"},
    "decisions": {"text": "Where is my parcel?"},
    "pictures": {"topic": "ferries of the bay"},
    "image_questions": {"image": draw_square("red", Random(1))},
    "tool_calls": {"task": "a nurse, who is in a hurry", "domain": "clinic"},
}
TASKS = {"decisions": '[[task.questions]]\nname = "late"\nask = "Is it late?"\ntype = "yes_no"\n'}
"""What a recipe of the family must say."""
FACT = {"name": "Apis mellifera", "eyes": 5}
PLACED = "Fact: {{fact}}, found by {{who_found}}."
SAID = f"Fact: {json.dumps(FACT)}, found by Réaumur."
CHECKS = '''
from agents.checks import Options, ReplySchema, Subject, check


class Opinion(ReplySchema):
    fits: bool


@check("facts", calls=lambda options: 1, roles=("facts",))
async def facts(subject: Subject, options: Options) -> str | None:
    """The fact of the seed must be known."""
    assert subject.seed.data["fact"] == {"name": "Apis mellifera", "eyes": 5}
    assert subject.values["who_found"] == "Réaumur"
    opinion = await subject.ask("facts", Opinion, {"answer": subject.candidate.answer}, which=0, temperature=0.0)
    return None if opinion.fits else "mention the fact"
'''


class Recording(FakeTeacher):
    """The family's script, a critic that accepts every draft, and a second reader that accepts none."""

    def __init__(self, config: TeacherConfig, script: str) -> None:
        super().__init__(config, script)
        self.asked: dict[str, list[str]] = defaultdict(list)

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        revised = "Not right" if any("REVISE " in message.content for message in question.messages) else ""
        self.asked[revised or question.contract].append(question.messages[-1].content)
        if question.contract in ("Opinion", "Review"):
            reply: Any = {"fits": False}
            if question.json_schema and question.contract == "Review":
                rubrics = question.json_schema["properties"]["scores"]["required"]
                reply = {"scores": dict.fromkeys(rubrics, 5), "faults": [], "advice": "Keep it."}
            return TeacherReply(text=json.dumps(reply), finished=True, usage=TokenUsage(calls=1))
        return await super().reply(question, rank, account)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "checks.py").write_text(CHECKS)
    return tmp_path


def written(folder: Path, family: str, *rows: dict[str, Any]) -> Path:
    """A recipe of the family with the family's prompts and the fact added."""
    own = folder / "prompts"
    shutil.copytree(
        FAMILIES[family].prompts or PROJECT / "prompts" / family,
        own,
        ignore=shutil.ignore_patterns("verifier.md", "vote.md", "blind.md"),
    )
    for file in own.glob("*.md"):
        text = file.read_text().rstrip()
        head, _, last = text.rpartition("## user\n")
        file.write_text(
            f"{head}## user\n{'REVISE ' if file.stem in ('revise', 'revise_shown') else ''}{PLACED}\n{last}\n"
        )
    (own / "facts.md").write_text(f"## user\nAnswer: {{{{answer}}}}\n{PLACED}\n")
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe, seeds = folder / "recipe.toml", 'seeds.path = "seeds.jsonl"'
    if family == "image_questions":
        seeds = 'seeds.source = "images"\nimages.folder = "seeds.jsonl"'
    recipe.write_text(
        f'name = "x"\nfamily = "{family}"\nsamples = 2\nprompts = "prompts"\n{seeds}\n'
        '[topology]\nmax_revisions = 1\n[agents.critic]\ntype = "teacher"\n[[verifiers]]\ntype = "facts"\npath = "checks.py"\n'
        f'[teachers.main]\nmodel = "fake/{"writer" if family in ("constrained_instructions", "own_prompt") else family}"\n'
        f"{TASKS.get(family, '')}"
    )
    return recipe


@pytest.mark.parametrize("role", ["critic", "judge"])
def test_a_placed_column_that_some_rows_lack_is_refused_with_their_lines(role: str, folder: Path) -> None:
    rows = [{**ROWS["constrained_instructions"], "fact": FACT, "who_found": "Réaumur"} for _ in range(3)]
    recipe = written(folder, "constrained_instructions", *rows)
    prompts = {file.stem: file for file in (folder / "prompts").glob("*.md")}
    shipped = PROJECT / "prompts" / "constrained_instructions" / f"{role}.md"
    shared = shipped if shipped.is_file() else next((PROJECT / "prompts").rglob(f"{role}.md"))
    for file in prompts.values():
        if role == "judge" or file.stem != "facts":
            file.unlink()
    head, _, last = shared.read_text().rpartition("## user\n")
    (folder / "prompts" / f"{role}.md").write_text(f"{head}## user\n{PLACED}\n{last}")
    settings = ["verifiers=[{type='judge'}]"] if role == "judge" else []
    RunSeeds(load_recipe_plan(str(recipe), settings), "0" * 16).check()
    del rows[1]["who_found"]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UsageError, match=rf"seeds.jsonl:2: has no 'who_found', which .*{role}.md places"):
        RunSeeds(load_recipe_plan(str(recipe), settings), "0" * 16).check()


@pytest.mark.whole
@pytest.mark.parametrize("family", FAMILIES)
def test_a_column_can_be_placed_in_every_prompt_and_reaches_every_check(family: str, folder: Path) -> None:
    plan = load_recipe_plan(str(written(folder, family, {**ROWS[family], "fact": FACT, "who_found": "Réaumur"})))
    RunSeeds(plan, "0" * 16).check()
    config = plan.recipe.teachers["main"]
    teacher = Recording(config, config.model.removeprefix("fake/"))
    samples = produce_scripted(plan, teacher, folder)
    reply_types = [FAMILIES[family].reply_type(sample.seed) for sample in samples]
    drafts = {one.model_config.get("title") or one.__name__ for one in reply_types}
    if FAMILIES[family].converses:
        drafts = {"UserRequest", "AssistantStep"}
    assert teacher.asked.keys() == {*drafts, "Review", "Opinion", "Not right"}
    for role, asked in teacher.asked.items():
        assert all(SAID in text for text in asked), role
    for sample in samples:
        assert sample.seed.data["fact"] == FACT
        assert sample.detail == "facts"


def small(folder: Path, *lines: str, prompt: str = "") -> Path:
    (folder / "seeds.jsonl").write_text("".join(f"{line}\n" for line in lines))
    if prompt:
        (folder / "prompts").mkdir()
        (folder / "prompts" / "generator.md").write_text(f"## user\n{prompt}\n")
    recipe = folder / "recipe.toml"
    own = 'prompts = "prompts"\n' if prompt else ""
    recipe.write_text(f'name = "x"\n{own}seeds.path = "seeds.jsonl"\nteachers.main.model = "fake/writer"\n')
    return recipe


BEES = '"topic": "bees", "words": ["hive", "honey"]'


@pytest.mark.attack(
    "seeds with surrogate halves, or a column replacing a drawn condition",
    "refused, with file and line",
)
@pytest.mark.parametrize(
    ("line", "settings", "problem"),
    [
        (f"{{{BEES}}}", [], r"seeds.jsonl:2: has no 'fact', which .*generator.md places; give it to every seed"),
        (
            f'{{{BEES}, "fact": "x", "drawn": {{}}}}',
            [],
            "column 'drawn': reserved names are 'drawn', which holds what is drawn .*; rename",
        ),
        (
            f'{{{BEES}, "fact": "x"}}',
            ["seeds.draw.fact=['a', 'b']"],
            "column 'fact': reserved names are .* those in .seeds.draw. .fact.;",
        ),
        (f'{{{BEES}, "fact": "\\ud800"}}', [], r"seeds.jsonl:2: has half a surrogate pair"),
    ],
)
def test_a_column_that_cannot_be_used_is_reported_before_the_run(
    line: str, settings: list[str], problem: str, folder: Path
) -> None:
    recipe = small(folder, f'{{{BEES}, "fact": "five eyes"}}', line, prompt="{{instruction}} {{fact}}")
    with pytest.raises(UsageError, match=problem):
        RunSeeds(load_recipe_plan(str(recipe), settings), "0" * 16).check()


TOPIC = {"topic": "bees", "words": ["bee", "hive"]}


def seeds_in(folder: Path, *lines: str) -> RunSeeds:
    recipe = folder / "recipe.toml"
    recipe.write_text('name = "mine"\n[seeds]\npath = "seeds.jsonl"\n[teachers.main]\nmodel = "fake/writer"\n')
    (folder / "seeds.jsonl").write_text("".join(line + "\n" for line in lines))
    return RunSeeds(load_recipe_plan(str(recipe)), "0" * 16)


@pytest.mark.attack(
    "half a surrogate pair (`\\ud800`) in a seed",
    "refused, with its line",
)
def test_half_a_surrogate_pair_in_a_seed_is_named_with_its_line(tmp_path: Path) -> None:
    broken = json.dumps({**TOPIC, "category": "\ud800"})
    with pytest.raises(UsageError, match=r"seeds\.jsonl:2: has half a surrogate pair .* take it out"):
        seeds_in(tmp_path, json.dumps(TOPIC), broken)
    whole = seeds_in(tmp_path, json.dumps({**TOPIC, "category": "🐝"}))
    assert whole.rows[0]["category"] == "🐝"


DRAW = (
    "seeds.draw={persona=['a nurse','a sailor'],difficulty={easy=3,hard=1},"
    "field={science={physics=2,biology=1},arts=1,never=0}}"
)
BASE = ["teachers.main={model='fake/writer'}", "agents.critic=false", "topology.max_revisions=1"]


def test_conditions_are_drawn_independently_by_weight_and_reproducibly() -> None:
    plan = load_recipe_plan("smoke", [*BASE, DRAW, "samples=2000"])
    seeds = build_test_seeds(plan)[:]
    assert seeds == build_test_seeds(plan)[:]
    counts = {name: Counter(seed.conditions[name] for seed in seeds) for name in ("persona", "difficulty", "field")}
    assert set(counts["field"]) == {"science / physics", "science / biology", "arts"}
    for name, value, share in (("persona", "a nurse", 1 / 2), ("difficulty", "hard", 1 / 4), ("field", "arts", 1 / 4)):
        deviation = (share * (1 - share) * len(seeds)) ** 0.5
        assert abs(counts[name][value] - share * len(seeds)) < 4 * deviation, "one in 16,000 by chance"
    both = Counter((seed.conditions["persona"], seed.conditions["difficulty"]) for seed in seeds)
    assert len(both) == 4, "crossed, not bound to each other"


@pytest.mark.parametrize(
    ("draw", "problem"),
    [
        ("{x=[]}", "seeds.draw.x: has nothing to draw"),
        ("{x={a=0}}", "seeds.draw.x: has nothing to draw"),
        ("{x={a={b=-1}}}", "seeds.draw.x: 'a / b' needs a weight of 0 or more, not -1"),
        ("{x={a=nan}}", "'a' needs a weight of 0 or more, not nan"),
        ("{x={a=inf}}", "'a' needs a weight of 0 or more, not inf"),
        ("{x={a=true}}", "needs a weight of 0 or more, not True"),
        ("{x='nowhere.txt'}", "nowhere.txt: cannot be read"),
        ("{'Not A Name'=['a']}", "should match pattern"),
    ],
)
def test_an_unusable_condition_is_reported(draw: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        load_recipe_plan("smoke", [*BASE, f"seeds.draw={draw}"])


SETTINGS = [
    "samples=1", "task.kinds={max_words=1}", "task.constraints=[1]", 'verifiers=[{type="constraints"}]',
    "agents.critic.max_repairs=1",
]  # fmt: skip


def review(scores: Any) -> str:
    return json.dumps({"scores": scores, "faults": [], "advice": "Keep it."})


@pytest.mark.whole
@pytest.mark.parametrize("family", list_families(), ids=lambda family: family.name)
def test_the_critic_of_every_family_names_its_rubrics(family: RecipeFamily) -> None:
    rubrics = find_rubrics(prompts.load_prompt(family.name, "critic", installed=family.prompts))
    assert rubrics
    scores = build_review_schema(rubrics)["properties"]["scores"]
    assert list(scores["properties"]) == scores["required"] == list(rubrics)
    assert scores["additionalProperties"] is False


@pytest.mark.attack(
    "a critic scores other rubrics, or beyond the scale",
    "requested again, then the sample fails",
)
@pytest.mark.parametrize(
    "scores",
    [
        {"x": 5}, {"sense": 5}, {"sense": 5, "style": 5, "x": 5}, {}, {"sense": 5, "style": 6}, {"sense": 0, "style": 5},
        {"sense": 5, "style": 4.5}, {"sense": 5, "style": "5"}, {"sense": True, "style": 5}, {"sense": 5, "style": None},
        {"sense": 5, "style": 10**400}, [5, 5],
    ],
)  # fmt: skip
@pytest.mark.parametrize("mended", [True, False])
def test_a_critique_of_other_rubrics_is_asked_for_again_and_then_costs_its_sample(
    scores: Any, mended: bool, tmp_path: Path
) -> None:
    schemas = []

    def answer(question: TeacherQuestion) -> str:
        if question.contract == "Draft":
            return json.dumps({"answer": "Bees fly."})
        schemas.append(question.json_schema)
        again = "not the JSON object" in question.messages[-1].content
        return review({"style": 5, "sense": 4} if again and mended else scores)

    [sample] = produce_scripted(load_recipe_plan("smoke", SETTINGS), ScriptedTeacher(answer), tmp_path)
    assert [(turn.agent, turn.attempt) for turn in sample.turns] == [("generator", 0), ("critic", 0), ("critic", 1)]
    quotes = asks_for_quotes(prompts.load_prompt("constrained_instructions", "critic"))
    assert schemas == [build_review_schema(("sense", "style"), quotes=quotes)] * 2
    if mended:
        assert (sample.state, sample.critiques[0].scores) == (SampleStatus.kept, {"style": 5, "sense": 4})
    else:
        assert (sample.state, sample.reason) == (SampleStatus.failed, RejectionReason.contract)
        assert sample.detail.startswith("critic: scores")
