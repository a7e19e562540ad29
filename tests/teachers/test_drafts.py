"""Drafts of a local teacher: the replies stay the teacher's own, and a draft that cannot be used is refused or reported."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import LlamaForCausalLM

from agents.studies.teacher_probe import COLOURS, PROBE_SCHEMA
from benchmarks.decoding_speed import post_json
from core.config.teachers import TeacherConfig
from core.errors import ProviderError, RecipeError
from core.sample import Message
from core.weights.gguf_files import read_gguf_tokens
from flows.recipes.recipe_catalog import load_recipe_plan
from students.gguf_export import export_gguf
from teachers.base import TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.drafts import EXPORTED_DRAFT, DraftCounts, find_draft_problem, read_draft_counts
from teachers.local_llama import draft_settings, llama_settings, run_llama_server
from teachers.providers import open_teacher
from tests.students.conftest import opinionated, saved, tiny_llama, tiny_tokenizer


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of a teacher and of a student that shares nothing with it but the tokens, both exported."""
    vocabulary = len(tiny_tokenizer())
    teacher, stranger = (opinionated(tiny_llama(vocabulary), seed) for seed in (5, 6))
    return export_model(teacher, tmp_path_factory.mktemp("a")), export_model(stranger, tmp_path_factory.mktemp("b"))


CYCLE = 12


@pytest.fixture(scope="module")
def repeater(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a student whose text repeats: a token is followed by the next of its twelve, whatever was before."""
    vocabulary = len(tiny_tokenizer())
    model = opinionated(tiny_llama(vocabulary, tied=False), 5)
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    following = [(token + 1) % CYCLE + token // CYCLE * CYCLE for token in range(vocabulary - vocabulary % CYCLE)]
    model.lm_head.weight.data.zero_()
    model.lm_head.weight.data[following] = 5 * model.get_input_embeddings().weight.data[: len(following)]
    return export_model(model, tmp_path_factory.mktemp("repeater"))


def export_model(model: LlamaForCausalLM, folder: Path) -> Path:
    assert export_gguf(saved(model, tiny_tokenizer(), folder), "q8_0").path == folder / EXPORTED_DRAFT
    return folder


def build_question(seed: int, **more: Any) -> TeacherQuestion:
    values = {
        "messages": [Message(role="user", content=f"Write about {'bees and owls ' * (seed + 1)}.")], "contract": "Answer",
        "json_schema": None, "temperature": 0.0, "top_p": 1.0, "max_tokens": 40, "seed": seed, **more,
    }  # fmt: skip
    return TeacherQuestion.model_validate(values)


PLAIN = [build_question(seed) for seed in range(3)]
SAMPLED = [build_question(seed, temperature=1.0, top_p=0.9) for seed in range(3)]
IN_FORM = [build_question(seed, contract="Probe", json_schema=PROBE_SCHEMA) for seed in range(3)]


def ask(
    weights: Path, questions: Sequence[TeacherQuestion], notes: list[str], draft: str | None = None
) -> tuple[list[TeacherReply], str]:
    """The replies of one slot, in order, and the teacher's manner."""
    config = TeacherConfig(model=f"local/{weights}", max_concurrent=1, draft=draft, threads=1, logprobs=False)

    async def run() -> tuple[list[TeacherReply], str]:
        async with open_teacher(config) as teacher:
            return [await teacher.reply(one, 0, UnlimitedAccount()) for one in questions], teacher.manner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("teachers.providers.logger.info", notes.append)
        return asyncio.run(run())


@pytest.mark.parametrize("which", ["itself", "a stranger", "ngram"])
def test_replies_are_the_same_with_any_draft(which: str, students: tuple[Path, Path], repeater: Path) -> None:
    """Greedy, sampled, and within a schema. A draft that is never loaded would pass too, so its counts must show it."""
    teacher = repeater if which == "ngram" else students[0]
    draft = {"itself": str(students[0]), "a stranger": str(students[1]), "ngram": "ngram"}[which]
    questions, notes = [*PLAIN, *SAMPLED, *IN_FORM], list[str]()
    before, manner_before = ask(teacher / EXPORTED_DRAFT, questions, [])
    replies, manner = ask(teacher / EXPORTED_DRAFT, questions, notes, draft)
    assert manner == manner_before, "cached replies are shared"
    for one, other in zip(replies, before, strict=True):
        assert one.usage.completion_tokens == other.usage.completion_tokens
        assert (one.text, one.finished) == (other.text, other.finished)
    said = ["".join(reply.text.split()) for reply in replies[-len(IN_FORM) :]]
    assert all(any(f'{{"colour":"{colour}","again":"no"}}'.startswith(one) for colour in COLOURS) for one in said)
    [counted] = [note for note in notes if "proposed tokens accepted" in note]
    assert ("draft: 0 %" in counted) == (which == "a stranger"), counted
    assert any("makes the teacher slower" in note for note in notes) == (which != "ngram")


def count(weights: Path, draft: Path | str, tokens: int = 3, length: int = 64) -> DraftCounts:
    """What became of a draft's proposals in three greedy replies."""

    async def run() -> DraftCounts:
        settings = {**llama_settings(str(weights), 1, 512, threads=1), **draft_settings(draft, tokens, threads=1)}
        async with run_llama_server("x", settings, print, 120) as server:
            for start in ("I like bees", "Write about owls", "owls and bees"):
                body = {"prompt": start, "n_predict": length, "temperature": 0, "ignore_eos": True}
                await post_json(server.server, "completion", body)
            return await read_draft_counts(server.server)

    return asyncio.run(run())


def test_the_proposals_of_the_teacher_itself_are_accepted_and_hardly_any_of_a_stranger(
    students: tuple[Path, Path], repeater: Path
) -> None:
    """But for an end of the reply, which the draft may propose and the request ignores."""
    teacher, stranger = (folder / EXPORTED_DRAFT for folder in students)
    own = count(teacher, teacher)
    assert own.accepted > 0, "the draft was loaded"
    assert own.acceptance > 0.95
    assert own.tokens_per_verification > 3.5, "four, but for the ends of replies"
    other = count(teacher, stranger)
    assert other.verifications > 100
    assert other.acceptance < 0.1
    assert 1.95 < count(teacher, teacher, 1).tokens_per_verification <= 2
    assert count(repeater / EXPORTED_DRAFT, "ngram").acceptance > 0.9
    assert count(teacher, "ngram").acceptance < 0.1, "its text does not repeat"


async def complete(settings: dict[str, Any], *bodies: dict[str, Any]) -> list[dict[str, Any]]:
    """The replies of one llama.cpp server to completions, all sent at once."""
    async with run_llama_server("x", settings, print, 300) as server:
        return await asyncio.gather(*(post_json(server.server, "completion", body) for body in bodies))


def test_llama_cpp_returns_no_probability_of_an_accepted_token(students: tuple[Path, Path]) -> None:
    """The reason why a draft needs `logprobs = false`. If this fails, llama.cpp returns them now, and the rule can go."""
    weights = students[0] / EXPORTED_DRAFT
    body = {"prompt": "I like bees", "n_predict": 20, "temperature": 0, "ignore_eos": True, "n_probs": 2}
    plain = llama_settings(str(weights), 1, 256, threads=1)
    drafting = plain | draft_settings(weights, 3, threads=1)
    [[before], [drafted]] = (asyncio.run(complete(settings, body)) for settings in (plain, drafting))
    assert before["content"] == drafted["content"]
    assert all(token["logprob"] < 0 for token in before["completion_probabilities"])
    unknown = [token for token in drafted["completion_probabilities"] if not token["top_logprobs"]]
    assert len(unknown) >= drafted["timings"]["draft_n_accepted"] > 10
    assert all(token["logprob"] == 0 for token in unknown), "a probability of 1, which would be trusted"


def write_tokens(path: Path, tokens: Sequence[str]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("before", 7)
    writer.add_array("numbers", [1.5, 2.5])
    writer.add_array("texts", ["a", "", "ä"])
    writer.add_bool("flag", True)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_the_tokens_of_a_file_are_read_without_a_library(students: tuple[Path, Path], tmp_path: Path) -> None:
    weights = students[0] / EXPORTED_DRAFT
    field = gguf.GGUFReader(weights).fields["tokenizer.ggml.tokens"]
    assert [token.decode() for token in read_gguf_tokens(weights)] == field.contents()
    assert read_gguf_tokens(write_tokens(tmp_path / "few.gguf", ["x", "é"])) == (b"x", "é".encode())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"GGUF", "its 4 bytes are no GGUF file"),
        (b"GGUF" + bytes(20), "no little-endian GGUF file of version 2 or later"),
        (b"GGUF\x03" + bytes(19), "it has no tokens"),
        (b"GGUF\x03" + bytes(11) + b"\x01" + bytes(7), "its header is cut off"),
        (b"GGUF\x03" + bytes(11) + b"\x01" + bytes(7) + b"\xff" * 8, "its header is cut off"),
        (b"GGUF\x03" + bytes(11) + b"\x02" + bytes(15) + b"\x09" + bytes(3) + b"\x0a" + bytes(3) + b"\xff" * 8, "is cut off"),
        (b"GGUF\x03" + bytes(11) + b"\x01" + bytes(15) + b"\x63" + bytes(3), "a value of unknown type 99"),
    ],
)  # fmt: skip
def test_a_damaged_header_is_one_sentence(content: bytes, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        read_gguf_tokens(file)


def find_problem(weights: Path, draft: str | Path) -> str:
    return find_draft_problem(TeacherConfig(model=f"local/{weights}", draft=str(draft), logprobs=False)) or ""


def test_each_draft_that_cannot_be_used_has_a_sentence(students: tuple[Path, Path], tmp_path: Path) -> None:
    teacher, student = students[0] / EXPORTED_DRAFT, students[1]
    assert find_problem(teacher, student) == find_problem(teacher, student / EXPORTED_DRAFT) == ""
    assert (
        find_problem(teacher, "gone")
        == "there is no file or folder 'gone' in the recipe's folder or the working directory"
    )
    assert find_problem(teacher, tmp_path) == f"'{tmp_path}' is no student's folder: it has no config.json"
    bare = tmp_path / "a student"
    bare.mkdir()
    (bare / "config.json").write_text("{}")
    assert f"is not exported as student-q8_0.gguf; run `stillhouse export '{bare}'`" in find_problem(teacher, bare)
    (bare / EXPORTED_DRAFT).write_text("a shopping list")
    assert "is no GGUF file: it begins with b'a sh'" in find_problem(teacher, bare)

    tokens = [token.decode() for token in read_gguf_tokens(teacher)]
    trimmed = write_tokens(tmp_path / "trimmed.gguf", tokens[:300])
    assert (
        f"has a trimmed vocabulary, 300 of the teacher's {len(tokens)} tokens, and a draft needs all; train it without"
        in (find_problem(teacher, trimmed))
    )
    other = write_tokens(tmp_path / "other.gguf", [f"{token}x" for token in tokens])
    assert f"has another tokenizer than the teacher ({len(tokens)} others)" in find_problem(teacher, other)
    swapped = write_tokens(tmp_path / "swapped.gguf", [tokens[1], tokens[0], *tokens[2:]])
    assert "has another tokenizer" in find_problem(teacher, swapped), "the same tokens with other ids"
    more = write_tokens(tmp_path / "more.gguf", [*tokens, "new"])
    assert f"({len(tokens) + 1} tokens, the teacher {len(tokens)})" in find_problem(teacher, more)

    with pytest.raises(RecipeError, match=r"teachers\.main\.draft: .*trimmed\.gguf' has a trimmed vocabulary"):
        load_recipe_plan("smoke", [f"teachers.main={{model='local/{teacher}',draft='{trimmed}',logprobs=false}}"])


def test_a_draft_that_is_swapped_or_deleted_after_the_validation_is_refused_at_the_start(
    students: tuple[Path, Path], tmp_path: Path
) -> None:
    teacher = students[0] / EXPORTED_DRAFT
    draft = tmp_path / "draft.gguf"
    draft.write_bytes(teacher.read_bytes())
    setting = f"teachers.main={{model='local/{teacher}',draft='draft.gguf',logprobs=false}}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert load_recipe_plan("smoke", [setting]).recipe.teachers["main"].draft_path == draft
    tokens = [token.decode() for token in read_gguf_tokens(teacher)]
    draft.unlink()
    for problem in ("there is no file", "has another tokenizer"):
        with pytest.raises(ProviderError, match=rf"^local/.*: draft: .*{problem}"):
            ask(teacher, PLAIN[:1], [], str(draft))
        write_tokens(draft, tokens[::-1])
