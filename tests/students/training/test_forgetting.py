"""Methods of `[student]` against forgetting: replay and averaged weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from core.config.students import ReplayConfig, StudentConfig
from core.errors import RunFailed, UsageError
from core.sample import Message
from students.chat_encoding import Conversation, EncodedConversation, find_pad_id
from students.generation import sample_texts
from students.gguf_export import read_student
from students.replay import OPENINGS, PACKAGED_REPLAY, find_user_turn, is_packaged, load_replay, replay_digest
from students.start_model import start_from_layers
from students.torch_teacher import load_original
from students.training.checkpoint import locate_checkpoint
from students.training.steps import StartReference
from students.training.student_training import train_student
from students.training.training_setup import build_reference, build_replay_writer, prepare_replay, prepare_start
from tests.students.conftest import opinionated, quiet, saved, tiny_llama

REPLAY = {"share": 1.0, "most": 16, "max_tokens": 24}


@pytest.fixture(scope="module")
def chatty(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start with firm habits, whose requests often end: after no special token but the end of the turn."""
    model = opinionated(tiny_llama(len(tokenizer)), 4)
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        embeddings[:2] = 0
        embeddings[2] *= 2
    return saved(model, tokenizer, tmp_path_factory.mktemp("chatty"))


@pytest.fixture(scope="module")
def replay_file(chatty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its replay conversations, written once."""
    path = tmp_path_factory.mktemp("replay") / "replay.jsonl"
    config = configure(chatty, path)
    model, tokenizer = read_student(chatty)
    assert config.replay
    load_replay(model.bfloat16(), tokenizer, config.replay, 11, path, progress=quiet)
    return path


def configure(start: Path, cache: Path | None = None, **settings: Any) -> StudentConfig:
    replay = {**REPLAY, "cache": str(cache) if cache else None, **settings.pop("replay", {})}
    fixed = {"epochs": 4, "learning_rate": 3e-3, "batch_size": 4, "max_tokens": 64, "checkpoint_steps": 5}
    return StudentConfig.model_validate({"start": str(start), **fixed, "replay": replay, **settings})


def read_weights(student: Path) -> dict[str, torch.Tensor]:
    return {name: weight.float() for name, weight in load_file(student / "model.safetensors").items()}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def measure_fresh_divergence(student: Path, start: Path) -> float:
    """The divergence of a student from its start on answers of the start to requests that no training used."""
    model, tokenizer = read_student(start)
    prompts = [
        tuple(tokenizer.apply_chat_template([{"role": "user", "content": f"Tell me about {topic}."}],
              add_generation_prompt=True, return_dict=True)["input_ids"])
        for topic in ("a cat", "the sea", "my bread", "one star", "tea in rain", "old maps", "chess", "what to do")
    ]  # fmt: skip
    answers = sample_texts(model, prompts, stop=[2], pad=0, max_new_tokens=24, temperature=1.0, seed=99)
    fresh = [
        EncodedConversation(prompt + answer, (False,) * len(prompt) + (True,) * len(answer))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return StartReference(model, None, torch.float32).measure_divergence(read_student(student)[0], fresh, 0)


class Interrupted(Exception):
    pass


def test_replay_survives_interruptions_while_it_is_written_and_learned(
    talk: list[Conversation], chatty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("students.training.training_loop.PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr("students.replay.REPLAY_BATCH", 8)  # several batches
    monkeypatch.setattr("students.replay.REQUEST_TOKENS", 48)
    config, out = configure(chatty), tmp_path / "student"
    record = train_student(talk, config, tmp_path / "undisturbed", seed=7, progress=quiet)
    written = (tmp_path / "undisturbed.replay.jsonl").read_text()

    def stop_in_generation(line: str) -> None:
        if "writes replay" in line and out.with_name("student.replay.jsonl").exists():
            raise Interrupted

    def stop_in_training(_line: str) -> None:
        if (locate_checkpoint(out) / "state.pt").exists():
            raise Interrupted

    for stop in (stop_in_generation, stop_in_training):
        with pytest.raises(Interrupted):
            train_student(talk, config, out, seed=7, progress=stop)
    lines: list[str] = []
    assert train_student(talk, config, out, seed=7, progress=lines.append).replay == record.replay
    assert any("resumes after step" in line for line in lines)
    assert not any("writes replay" in line for line in lines)
    assert (tmp_path / "student.replay.jsonl").read_text() == written
    assert distance(read_weights(out), read_weights(tmp_path / "undisturbed")) == 0
    log = [json.loads(line) for line in (out / "training_log.jsonl").read_text().splitlines()]
    assert all(line["loss"] == pytest.approx(line["sft"] + line["replay"], rel=1e-5) for line in log)
    assert "learned as replay" in (out / "README.md").read_text()


def test_replay_conversations_are_the_starts_own_and_new(
    chatty: Path, replay_file: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    head, *rows = map(json.loads, replay_file.read_text().splitlines())
    assert head["batches"] >= 1
    assert len(rows) >= 24
    assert len({" ".join(row["request"].lower().split()) for row in rows}) == len(rows)
    for row in rows:
        assert str(tokenizer.decode(row["prompt"])).endswith(
            f"user\n{row['request']}<|im_end|>\n<|im_start|>assistant\n"
        )
        assert str(tokenizer.decode(row["prompt"])).startswith("<|im_start|>system\nYou are small.<|im_end|>")
        assert row["learned"].count(2) <= 1  # the end of the turn
    turn = find_user_turn(tokenizer)
    assert turn.stop == 2
    assert turn.before.endswith("<|im_start|>user\n")


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        ("kl", {}),
        ("sft", {}),
        ("kl", {"accumulate": 2, "batch_size": 2}),
        ("kl", {"lora": {"rank": 8}, "learning_rate": 2e-2}),
        ("kl", {"objective": {"sft": 1, "forward_kl": 0.5}}),
    ],
)
def test_a_student_with_replay_stays_nearer_to_its_start(
    loss: str, settings: dict[str, Any], talk: list[Conversation], chatty: Path, replay_file: Path, teacher: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    settings = {**settings, "distillation": {"teacher": str(teacher)}}
    with_replay = configure(chatty, replay_file, replay={"loss": loss, "weight": 2.0}, **settings)
    record = train_student(talk, with_replay, tmp_path / "replay", seed=7, progress=quiet)
    train_student(talk, with_replay.model_copy(update={"replay": None}), tmp_path / "plain", seed=7, progress=quiet)
    divergences = [measure_fresh_divergence(tmp_path / name, chatty) for name in ("replay", "plain")]
    assert divergences[0] < 0.8 * divergences[1]
    assert record.replay
    assert 0 < record.replay.divergence < divergences[1]
    assert record.replay.divergence_before < 0.01 < record.replay.divergence
    assert record.loss_after < record.loss_before - 0.5


@pytest.mark.parametrize("settings", [{}, {"lora": {"rank": 8}}])
def test_averaged_weights_lie_between_the_start_and_the_trained(
    settings: dict[str, Any], talk: list[Conversation], chatty: Path, tmp_path: Path
) -> None:
    plain = StudentConfig.model_validate({**configure(chatty, epochs=2, **settings).model_dump(), "replay": None})
    found = {}
    for share in (None, 0.0, 0.25, 1.0):
        config = StudentConfig.model_validate({**plain.model_dump(), "average": share})
        record = train_student(talk, config, tmp_path / str(share), seed=7, progress=quiet)
        assert record.average == share
        found[share] = read_weights(tmp_path / str(share))
    assert distance(found[None], found[1.0]) == 0
    assert distance(found[0.0], {n: w.bfloat16().float() for n, w in read_weights(chatty).items()}) == 0
    expected = {name: torch.lerp(found[0.0][name], found[None][name], 0.25) for name in found[0.0]}
    torch.testing.assert_close(found[0.25], expected, rtol=2**-7, atol=1e-3)  # stored in bfloat16


def test_a_start_that_writes_no_requests_is_refused_in_one_sentence(
    talk: list[Conversation], tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("students.replay.REPLAY_BATCH", 8)
    monkeypatch.setattr("students.replay.REQUEST_TOKENS", 24)
    mute = opinionated(tiny_llama(len(tokenizer), tied=False), 3)
    with torch.no_grad():
        mute.lm_head.weight *= 5
        mute.lm_head.weight[:3] = 0  # it never ends a turn
    folder = saved(mute, tokenizer, tmp_path / "mute")
    with pytest.raises(RunFailed, match=r"the start wrote \d+ usable requests in \d+ attempts"):
        train_student(talk, configure(folder, replay={"max_tokens": 16}), tmp_path / "s", seed=7, progress=quiet)


def test_the_writer_of_a_replay_has_rounded_weights_and_exact_rotary_frequencies(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    model = tiny_llama(len(tokenizer))
    writer = build_replay_writer(model, StudentConfig.model_validate({"precision": "bf16"}))
    assert {parameter.dtype for parameter in writer.parameters()} == {torch.bfloat16}
    assert writer.model.rotary_emb.inv_freq.equal(model.model.rotary_emb.inv_freq)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}, "the original keeps its own"
    assert build_replay_writer(model, StudentConfig.model_validate({"precision": "float32"})) is model


@pytest.mark.slow
def test_the_whole_teacher_writes_sensible_replay_for_a_start_that_is_a_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("students.replay.REPLAY_BATCH", 16)  # one is enough
    monkeypatch.setattr("students.replay.REQUEST_TOKENS", 48)
    monkeypatch.setattr("students.replay.MIN_HELD_OUT", 2)
    rows: list[Conversation] = [
        [Message(role="user", content=f"Say {word}."), Message(role="assistant", content=f"{word}!")]
        for word in ("tea", "sea", "bee", "tree")
    ]
    replay = {"most": 8, "max_tokens": 16}
    settings = {"start": "layers", "layers": 3, "vocabulary": 2000, "epochs": 1, "replay": replay}
    config = StudentConfig.model_validate(settings)
    training = prepare_start(rows, None, (), (), config, 7, quiet, out=tmp_path / "student")
    start = training.start
    texts = prepare_replay(training)
    assert (len(texts.learned), len(texts.held_out)) == (8, 2)
    written = tmp_path / "student.replay.jsonl"
    _, *found = map(json.loads, written.read_text().splitlines())
    requests = [row["request"].lower() for row in found]
    assert sum(len(request.split()) >= 4 for request in requests) >= 0.8 * len(requests)
    plain = {"the", "a", "of", "to", "is", "in", "and", "i", "what", "how", "for", "write", "with", "you"}
    assert sum(not plain.isdisjoint(request.split()) for request in requests) >= 0.8 * len(requests), requests
    assert any(request.startswith(tuple(verb.lower() for verb in OPENINGS)) for request in requests)
    assert all(row["answer"].strip() for row in found)
    system = "<|im_start|>system\nYou are a helpful AI assistant"
    assert all(str(start.tokenizer.decode(row["prompt"])).startswith(system) for row in found)
    original = load_original(start.model, start.tokenizer, config)
    assert original.config.num_hidden_layers == 30
    reference = build_reference(training)
    assert reference
    pad = find_pad_id(start.tokenizer)
    assert reference.measure_divergence(original, texts.held_out, pad) < 0.05
    assert reference.measure_divergence(start.model, texts.held_out, pad) > 1
    again = load_replay(
        build_replay_writer(original, config),
        start.tokenizer,
        config.replay,
        3,
        written,
        progress=quiet,
    )  # of another writer, the file would be refused
    assert again == texts
    whole = StudentConfig.model_validate({**settings, "layers": 30})
    assert load_original(start.model, start.tokenizer, whole) is start.model


@pytest.mark.slow
def test_the_replay_of_the_default_settings_is_packaged(tmp_path: Path) -> None:
    start = start_from_layers(30)
    lines: list[str] = []
    path = tmp_path / "packaged.jsonl"
    writer = start.model.bfloat16()
    texts = load_replay(writer, start.tokenizer, ReplayConfig(), 27, path, progress=lines.append)
    assert (len(texts.learned), len(texts.held_out)) == (128, 13)
    assert lines == []
    assert path.read_text() == PACKAGED_REPLAY.read_text()
    other = ReplayConfig(max_tokens=24)
    assert not is_packaged(replay_digest(writer, start.tokenizer, other)), "the control: other settings"


def test_a_cache_serves_any_seed_and_no_other_start_or_settings(
    talk: list[Conversation], chatty: Path, replay_file: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    train_student(talk[:6], configure(chatty, replay_file), tmp_path / "second", seed=8, progress=lines.append)
    assert not any("writes replay" in line for line in lines)
    assert not (tmp_path / "second.replay.jsonl").exists()
    for other in (configure(tiny_folder, replay_file), configure(chatty, replay_file, replay={"max_tokens": 25})):
        with pytest.raises(UsageError, match="another start or other settings"):
            train_student(talk, other, tmp_path / "other", seed=7, progress=quiet)
    replay_file.with_name("damaged").write_text("{}")
    with pytest.raises(UsageError, match="not a file of replay"):
        train_student(talk, configure(chatty, replay_file.with_name("damaged")), tmp_path / "x", seed=7, progress=quiet)
