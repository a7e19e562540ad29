"""What a recipe has that leaves it to its family: as the shipped recipe of the family, and right for what a good model wrote."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from agents.checks.judge import JudgeVote
from agents.checks.plain_answers import IndependentSolution
from agents.families import list_families
from agents.families.constrained_instructions import AnswerDraft
from agents.families.instructions import InstructionDraft
from core.config.filters import DEFAULT_FILTERS
from core.config.recipe import Recipe
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from flows.data.curated_run import build_conversation_document
from flows.recipes.recipe_catalog import load_recipe_plan

OTHER_NAMES = {"pictures": "charts"}
SHIPPED = {
    family.name: OTHER_NAMES.get(family.name, family.name.replace("_", "-"))
    for family in list_families()
    if family.name not in ("decisions", "constrained_instructions")
}
"""The recipe for a capable model, by family. Questions of `decisions` have no default, and its recipe was not measured yet;
that of constrained instructions is for a small one."""
RENAMED_REPLY_TYPES = {
    AnswerDraft: "Draft",
    InstructionDraft: "Draft",
    JudgeVote: "Judgement",
    IndependentSolution: "Solution",
}
"""Reply types and their titles, by which teachers, caches and fake scripts know them."""
RECORDED = Path(__file__).with_name("recorded.jsonl")
"""Conversations that a capable model wrote for the shipped recipes and that all checks passed, by recipe."""


BY_MEANING = ("read_again",)
"""Checks for which a shipped recipe sets `similarity`, which needs an extra; the family's defaults do not."""


def least(folder: Path, family: str, *settings: str) -> Recipe:
    """A recipe with only a name, a family, seeds and a teacher."""
    shipped = load_recipe_plan(SHIPPED[family]).recipe
    tables = {"seeds": shipped.seeds.model_dump(exclude_defaults=True, exclude={"draw"})}
    if source := shipped.seeds.source:
        tables[source] = getattr(shipped, source).model_dump(exclude_defaults=True)
    lines = ['name = "mine"', f'family = "{family}"']
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value, separators=(',', ' = '))}" for key, value in table.items()]
    file = folder / "recipe.toml"
    file.write_text("\n".join([*lines, "[teachers.main]", 'model = "fake/writer"']))
    return load_recipe_plan(str(file), settings).recipe


def recorded() -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = defaultdict(list)
    for number, line in enumerate(RECORDED.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        found[row["recipe"]].append(build_conversation_document(str(number), row["messages"], row["question"]))
    return found


@pytest.mark.whole
@pytest.mark.parametrize("family", SHIPPED)
def test_a_recipe_with_seeds_and_a_teacher_behaves_as_the_shipped_one(family: str, tmp_path: Path) -> None:
    mine, shipped = least(tmp_path, family), load_recipe_plan(SHIPPED[family]).recipe
    plain = [
        check.model_dump() | ({"similarity": None} if check.type in BY_MEANING else {})
        for check in shipped.verifiers
        if check.path is None
    ]
    assert [check.model_dump() for check in mine.verifiers] == plain
    assert mine.filters == shipped.filters
    assert mine.collapse is not None
    assert shipped.collapse is not None
    assert mine.collapse == shipped.collapse
    assert mine.collapse.reference == {"code": "python"}.get(family), "no real text of the same kind is shipped"
    assert (mine.agents.critic is None) == (shipped.agents.critic is None) or family == "own_prompt"
    for role in ("generator", "critic", "verifier"):
        left, right = getattr(mine.agents, role), getattr(shipped.agents, role)
        assert left is None or right is None or left.max_tokens == right.max_tokens
    documents = recorded()[SHIPPED[family]]
    assert documents or family in ("pictures", "image_questions"), "no recorded model wrote or took images"
    assert apply_filters(documents, mine.filters).dropped == []


def test_a_recipe_names_a_reference_or_turns_it_off(tmp_path: Path) -> None:
    settings = {"false": None, "mine.jsonl": "mine.jsonl", "python": "python"}
    for setting, wanted in ((f"collapse.reference={name}", wanted) for name, wanted in settings.items()):
        found = least(tmp_path, "instructions", setting).collapse
        assert found is not None
        assert found.reference == wanted


def test_the_usual_filters_find_no_repetition_in_what_a_good_model_wrote() -> None:
    documents = [document for some in recorded().values() for document in some]
    usual = [config for config in DEFAULT_FILTERS if config.type == "repetition"]
    assert apply_filters(documents, usual).dropped == []


def test_a_renamed_reply_type_keeps_the_title_that_request_digests_contain() -> None:
    titles = {kind: kind.model_json_schema()["title"] for kind in RENAMED_REPLY_TYPES}
    assert titles == RENAMED_REPLY_TYPES
