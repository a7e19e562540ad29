"""Extensions that this program registers, and the rules of their names."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Literal

import pytest

import stillhouse
from agents.checks.registry import CHECK_EXTENSIONS
from core import extensions
from core.config.filters import FilterTable
from core.errors import RecipeError, RunFailed, UsageError
from core.extensions import hash_source
from filters.chain.filter_chain import apply_filters
from flows.clean.dataset_filter import filter_dataset
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import UnlimitedAccount
from teachers.providers import open_teacher
from tests.support.installed_plugins import write_metadata


class NoBees(stillhouse.Filter):
    about = "removes texts about bees"
    type: Literal["no_bees"]
    word: str = "bees"

    def apply(self, documents: Sequence[stillhouse.Document], folder: Path) -> list[stillhouse.DroppedDocument]:
        return [self.drop(one, f"has {self.word!r}") for one in documents if self.word in one.text.lower()]


class Lines(stillhouse.RecipeFamily):
    name = "lines"

    def condition(self, row: Any, options: Any, rng: Random) -> dict[str, Any]:
        return {}

    def reply_type(self, seed: stillhouse.Seed) -> type[stillhouse.ReplySchema]:
        return stillhouse.ReplySchema

    def candidate(self, seed: stillhouse.Seed, draft: Any) -> stillhouse.Candidate:
        return stillhouse.Candidate(messages=[])


class Parrot(stillhouse.LimitedTeacher):
    """Repeats the question. Its first answer to each is late, by a ConnectionError; a question with `quit` is a bug."""

    def __init__(self, config: stillhouse.TeacherConfig) -> None:
        super().__init__(config)
        self.asked: list[str] = []

    async def answer(self, question: stillhouse.TeacherQuestion) -> stillhouse.TeacherReply:
        text = question.messages[-1].content
        self.asked.append(text)
        if self.asked.count(text) == 1:
            raise ConnectionError("not yet")
        if "quit" in text:
            raise KeyError("bug")
        return stillhouse.TeacherReply(text=text, finished=True, usage=stillhouse.TokenUsage(calls=1))


@asynccontextmanager
async def open_parrot(config: stillhouse.TeacherConfig) -> AsyncIterator[Parrot]:
    yield Parrot(config)


@stillhouse.check("tidy")
def tidy(subject: stillhouse.Subject, options: stillhouse.Options) -> str | None:
    """Passes."""
    return None


@stillhouse.loss("half")
def half(logits: Any, targets: Any, options: Any) -> Any:
    return logits.sum(1) / 2


parrot = stillhouse.TeacherProtocol("parrot", open_parrot)


@pytest.fixture(autouse=True)
def only_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(extensions, "_registered", {kind: {} for kind in extensions.BASES})


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("Bees make honey.", "Cows give milk.")))
    return file


def test_a_registered_filter_is_used_by_name_until_then_it_is_unknown(rows: Path) -> None:
    with pytest.raises(RecipeError, match="unknown filter 'no_bees'"):
        stillhouse.filter(rows, filters=["no_bees"])
    assert stillhouse.register(NoBees) is NoBees
    clean = stillhouse.filter(rows, filters=["exact", "no_bees"])
    assert clean.kept["text"].to_list() == ["Cows give milk."]
    cows = stillhouse.filter(rows, filters=[{"type": "no_bees", "word": "cows"}])
    assert cows.kept["text"].to_list() == ["Bees make honey."]
    with pytest.raises(RecipeError, match="did you mean 'no_bees'"):
        stillhouse.filter(rows, filters=["no_bee"])


def test_a_registered_extension_of_each_kind_is_part_of_a_recipe_and_its_identity() -> None:
    for extension in (NoBees, Lines, tidy, half, parrot):
        stillhouse.register(extension)
    settings = [
        "verifiers=[{type='tidy'}]",
        "filters=[{type='no_bees'}]",
        "teachers.main={model='parrot/x'}",
        "student={objective='half'}",
        "agents.critic=false",
    ]
    plan = load_recipe_plan("smoke", settings)
    found = {f"{extension.kind} {extension.name}" for extension in plan.extensions}
    assert found == {"filter no_bees", "check tidy", "loss half", "protocol parrot"}
    sources = plan.sources
    assert {name: sources[name] for name in found} == dict.fromkeys(found, f"registered {hash_source(NoBees)}")
    assert plan.recipe.model_dump(mode="json")["filters"] == [{"type": "no_bees", "word": "bees"}]
    assert not found & load_recipe_plan("smoke").sources.keys()


def test_work_in_other_processes_refuses_what_is_registered_here_only(rows: Path, tmp_path: Path) -> None:
    stillhouse.register(NoBees)
    stillhouse.register(tidy)
    reason = load_recipe_plan("smoke", ["verifiers=[{type='tidy'}]"]).own_process_reason
    assert reason is not None
    assert "works in other processes, which do not know the check 'tidy'" in reason
    assert load_recipe_plan("smoke").own_process_reason is None
    with pytest.raises(
        UsageError, match="workers = 2 works in other processes, which do not know the filter 'no_bees'"
    ):
        stillhouse.filter(rows, filters=["no_bees"], workers=2)
    with pytest.raises(UsageError, match="--cluster works in other processes"):
        filter_dataset(rows, tmp_path / "out", [NoBees(type="no_bees")], workers="tcp://localhost:1")
    assert stillhouse.filter(rows, filters=["no_bees"], workers=1).kept.height == 1


@pytest.mark.parametrize(
    ("extension", "fault"),
    [
        (type("Exact", (NoBees,), {"__annotations__": {"type": Literal["exact"]}}), "'exact' is the name of a built-in filter"),
        (type("Extraction", (Lines,), {"name": "extraction"}), "'extraction' is the name of a built-in family"),
        (stillhouse.check("judge")(lambda subject, options: None), "'judge' is the name of a built-in check"),
        (stillhouse.loss("sft")(lambda logits, targets, options: None), "'sft' is the name of a built-in loss"),
        (stillhouse.loss("held_out")(lambda logits, targets, options: None), "has a reserved name; give it another"),
        (stillhouse.TeacherProtocol("openai", open_parrot), "'openai' is the name of a built-in protocol"),
        (FilterTable, "is no extension; it must be a Check, a Loss"),
        (NoBees.__mro__[1], "has no method apply"),
        (stillhouse.check("Tidy")(lambda subject, options: None), "has the name 'Tidy'; a name is of lowercase letters"),
        (open_parrot, "is no extension; it must be a Check, a Loss"),
    ],
)  # fmt: skip
def test_a_built_in_name_is_never_replaced(extension: Any, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        stillhouse.register(extension)


def test_a_registered_check_with_the_name_of_a_familys_check_is_refused_and_not_ignored() -> None:
    settings = ["verifiers=[{type='constraints'}]"]
    load_recipe_plan("smoke", settings)  # control
    stillhouse.register(stillhouse.check("constraints")(lambda subject, options: "never"))
    with pytest.raises(RecipeError, match=r"verifiers.0.type: this program registered a check 'constraints', which is"):
        load_recipe_plan("smoke", settings)


def ask(config: stillhouse.TeacherConfig, text: str) -> str:
    async def reply() -> str:
        async with open_teacher(config) as teacher:
            question = stillhouse.TeacherQuestion(
                messages=[stillhouse.Message(role="user", content=text)], contract="X", json_schema=None,
                temperature=0, top_p=1, max_tokens=9, seed=0,
            )  # fmt: skip
            return (await teacher.reply(question, 0, UnlimitedAccount())).text

    return asyncio.run(reply())


def test_a_protocol_only_answers_and_a_bug_in_it_fails_one_sample() -> None:
    stillhouse.register(parrot)
    config = stillhouse.TeacherConfig(model="parrot/x", max_retries=1)
    assert ask(config, "hello") == "hello"
    with pytest.raises(stillhouse.CallFailed, match="the protocol 'parrot' of this program broke: KeyError: 'bug'"):
        ask(config, "quit")
    with pytest.raises(stillhouse.CallFailed, match="ConnectionError: not yet"):
        ask(config.model_copy(update={"max_retries": 0}), "hello")


def test_a_family_with_arguments_and_a_filter_without_its_file_are_one_sentence(rows: Path) -> None:
    class Counted(Lines):
        name = "counted"

        def __init__(self, count: int) -> None:
            self.count = count

    class Listed(NoBees):
        type: Literal["listed"]

        def list_files(self) -> list[str]:
            return [self.word]

    stillhouse.register(Counted)
    stillhouse.register(Listed)
    with pytest.raises(RecipeError, match="the family 'counted' of this program cannot be created: TypeError"):
        load_recipe_plan("smoke", ["family=counted"])
    with pytest.raises(RecipeError, match=r"filters.0: .*nowhere.txt: is no file that can be read"):
        stillhouse.filter(rows, filters=[{"type": "listed", "word": "nowhere.txt"}])
    assert stillhouse.filter(rows, filters=[{"type": "listed", "word": str(rows)}]).kept.height == 2


def test_the_package_of_the_entry_point_is_part_of_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that offers a function of another package with its own arguments."""
    hashes = []
    for place, number in (("a", 1), ("b", 1), ("c", 2)):
        write_metadata(tmp_path / place, "limited_words", "limited_words = limited_words:PLUGIN")
        code = f"import stillhouse\nfrom keyword import iskeyword\nNUMBER = {number}\n"
        code += "limited = stillhouse.Check('limited', 'Passes.', iskeyword, stillhouse.Options)\n"
        code += "parts = (stillhouse.Part('check', 'limited', lambda: limited),)\n"
        code += "PLUGIN = stillhouse.Plugin('limited_words', 'A check.', parts)\n"
        (tmp_path / place / "limited_words.py").write_text(code)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / place))
            patch.delitem(sys.modules, "limited_words", raising=False)
            hashes.append(CHECK_EXTENSIONS.require("limited").identity)
        sys.modules.pop("limited_words", None)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_filter_decides_on_its_own_documents_only() -> None:
    class Strange(NoBees):
        type: Literal["strange"]

        def apply(self, documents: Sequence[stillhouse.Document], folder: Path) -> list[stillhouse.DroppedDocument]:
            return [self.drop(stillhouse.Document("elsewhere", ""), "x")]

    stillhouse.register(Strange)
    with pytest.raises(RunFailed, match="decided on 'elsewhere', a document that it was not given"):
        apply_filters([stillhouse.Document("a", "text")], [Strange(type="strange")])
