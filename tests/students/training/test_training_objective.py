"""Students that learn from a teacher: a tiny random Llama with opinions of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from core.config.loading import parse_settings
from core.config.students import DIVERGENCES, StudentConfig
from core.errors import RunFailed, RunInUse, UsageError
from core.sample import Message
from flows.run.dataset_distillation import distill_dataset, hold_folder
from students.chat_encoding import Conversation, EncodedConversation, encode_conversation
from students.torch_teacher import TorchTeacher
from students.training.checkpoint import locate_checkpoint
from students.training.student_training import train_student
from students.training.training_objective import TrainingObjective
from students.training_data import TrainingData, encode_and_split
from tests.students.conftest import opinionated, quiet, saved, tiny_llama


@pytest.fixture
def config(config: StudentConfig, teacher: Path) -> StudentConfig:
    return with_settings(config, distillation={"teacher": str(teacher)}, epochs=5, checkpoint_steps=5)


def with_settings(config: StudentConfig, **settings: Any) -> StudentConfig:
    old = config.model_dump()
    adjusted = {**old["distillation"], **settings.pop("distillation", {})}
    return StudentConfig.model_validate({**old, **settings, "distillation": adjusted})


def log_of(student: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (student / "training_log.jsonl").read_text().splitlines()]


def assert_same_student(one: Path, other: Path) -> None:
    weights, others = (load_file(student / "model.safetensors") for student in (one, other))
    assert all(weights[name].equal(others[name]) for name in weights)
    assert log_of(one) == log_of(other)


@pytest.mark.parametrize("objective", sorted(DIVERGENCES))
@pytest.mark.parametrize("signals", ["dense", "top_k"])
def test_every_divergence_reduces_the_distance_to_the_teacher(
    objective: str, signals: str, talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    adjusted = with_settings(config, objective=objective, distillation={"signals": signals, "top_k": 20})
    record = train_student(talk, adjusted, tmp_path / "student", seed=7, progress=quiet)
    assert record.kl_before is not None
    assert record.kl_after is not None
    assert record.kl_after < 0.9 * record.kl_before
    losses = [line["loss"] for line in log_of(tmp_path / "student")]
    assert losses[-1] < 0.95 * losses[0]


def test_sampled_signals_teach_the_same_as_all_probabilities(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    adjusted = with_settings(config, objective="forward_kl", epochs=6)
    dense = train_student(talk, adjusted, tmp_path / "dense", seed=7, progress=quiet)
    drawn = with_settings(adjusted, distillation={"signals": "sampled"})
    sampled = train_student(talk, drawn, tmp_path / "sampled", seed=7, progress=quiet)
    exact = with_settings(adjusted, distillation={"signals": "top_k", "top_k": 400})
    whole = train_student(talk, exact, tmp_path / "whole", seed=7, progress=quiet)
    assert dense.kl_before is not None
    assert dense.kl_after is not None
    assert sampled.kl_after is not None
    assert whole.kl_after == pytest.approx(dense.kl_after, rel=0.05)
    assert sampled.kl_after < (dense.kl_after + dense.kl_before) / 2


def test_objectives_are_weighted_and_logged_separately(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    mixed = with_settings(config, objective={"sft": 0.25, "forward_kl": 2.0, "hidden": 0.5}, epochs=3)
    record = train_student(talk, mixed, tmp_path / "student", seed=7, progress=quiet)
    for line in log_of(tmp_path / "student"):
        assert line["loss"] == pytest.approx(
            0.25 * line["sft"] + 2 * line["forward_kl"] + 0.5 * line["hidden"], rel=1e-4
        )
    first, last = log_of(tmp_path / "student")[0], log_of(tmp_path / "student")[-1]
    assert all(last[name] < first[name] for name in ("sft", "forward_kl", "hidden"))
    assert record.loss_after < record.loss_before


def test_a_temperature_softens_student_and_teacher_alike(
    model: LlamaForCausalLM, encoded: list[EncodedConversation]
) -> None:
    words, one = model.config.vocab_size, encoded[0]
    student, teacher = opinionated(model, 1), opinionated(tiny_llama(words), 2)
    adjusted = with_settings(StudentConfig(), objective="forward_kl", distillation={"temperature": 2.0})
    lesson = TrainingObjective(adjusted, TorchTeacher(teacher, words, 2.0), words, torch.nn.ModuleList())
    learned = torch.tensor(one.learned[1:])
    with torch.no_grad():
        q, p = ((m(torch.tensor([one.ids])).logits[0, :-1][learned] / 2).softmax(-1) for m in (student, teacher))
    exact = (p * (p / q).log()).sum(1).mean().item()
    assert lesson.compute_terms(student, [one], 0).values["forward_kl"].item() == pytest.approx(exact, rel=1e-4)
    assert lesson.measure(student, [one], 0).kl == pytest.approx(exact, rel=1e-4)


# What must not pass in silence


@pytest.mark.parametrize("signals", ["top_k", "sampled"])
def test_signals_captured_from_the_start_itself_are_refused(
    signals: str, talk: list[Conversation], config: StudentConfig, tiny_folder: Path, tmp_path: Path
) -> None:
    """Their gradient is that of rounding or of draws, and not zero: it would lead the student away from its teacher."""
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    itself = with_settings(config, objective="forward_kl", distillation={"teacher": str(copy), "signals": signals})
    with pytest.raises(UsageError, match="starts as its own teacher"):
        train_student(talk, itself, tmp_path / "student", seed=7, progress=quiet)
    both = with_settings(itself, objective={"sft": 1, "forward_kl": 1}, epochs=1)
    assert train_student(talk, both, tmp_path / "student", seed=7, progress=quiet).steps


@pytest.mark.parametrize("epochs", [2, 5])
def test_a_teacher_without_gradient_besides_the_text_fails_the_run(
    epochs: int, talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    """Weighed so little that only rounding is left, while the loss keeps falling."""
    lost = with_settings(config, objective={"sft": 1, "forward_kl": 1e-9}, epochs=epochs)
    with pytest.raises(RunFailed, match="forward_kl had no gradient"):
        train_student(talk, lost, tmp_path / "student", seed=7, progress=quiet)


def test_an_objective_without_its_text_loss_has_no_text_gradient(
    talk: list[Conversation], config: StudentConfig, tokenizer: PreTrainedTokenizerBase, model: LlamaForCausalLM
) -> None:
    """The term that a data loader loses on the way: there is nothing to sum, which is no zero."""
    lesson = TrainingObjective(
        with_settings(config, objective="forward_kl"), None, len(tokenizer), torch.nn.ModuleList()
    )
    encoded = [
        one for one in (encode_conversation(one, tokenizer, 64) for one in talk) if isinstance(one, EncodedConversation)
    ]
    with pytest.raises(RuntimeError):
        lesson.compute_terms(model, encoded[:2], 0).weighted_sum(lesson.weights)


def test_captured_signals_are_reused_only_with_the_same_identity(
    talk: list[Conversation], config: StudentConfig, tiny_folder: Path, tmp_path: Path
) -> None:
    cache = {"signals": "top_k", "cache": str(tmp_path / "kept")}
    adjusted = with_settings(config, objective="forward_kl", distillation=cache, epochs=2)
    lines: list[str] = []
    train_student(talk, adjusted, tmp_path / "one", seed=7, progress=lines.append)
    assert any("bytes per token" in line for line in lines)
    before = (tmp_path / "kept").stat().st_mtime_ns

    lines.clear()
    train_student(
        talk[:8], with_settings(adjusted, learning_rate=1e-3), tmp_path / "two", seed=8, progress=lines.append
    )
    assert not any("bytes per token" in line for line in lines)
    assert (tmp_path / "kept").stat().st_mtime_ns == before

    new = [*talk, [Message(role="user", content="Hi"), Message(role="assistant", content="Hello.")]]
    with pytest.raises(UsageError, match="1 of 13 conversations are not among the 12"):
        train_student(new, adjusted, tmp_path / "three", seed=7, progress=quiet)
    other = with_settings(adjusted, objective={"sft": 1, "forward_kl": 1}, distillation={"teacher": str(tiny_folder)})
    with pytest.raises(UsageError, match="captured with another teacher"):
        train_student(talk, other, tmp_path / "three", seed=7, progress=quiet)
    assert not (tmp_path / "three").exists()


def test_a_teacher_with_another_tokenizer_is_refused(
    talk: list[Conversation], config: StudentConfig, teacher: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    from copy import deepcopy

    other = deepcopy(tokenizer)
    other.add_tokens(["<|tool|>"])
    saved(LlamaForCausalLM(tiny_llama(len(other)).config), other, tmp_path / "other")
    for signals in ("dense", "top_k"):
        adjusted = with_settings(
            config, objective="jsd", distillation={"teacher": str(tmp_path / "other"), "signals": signals}
        )
        with pytest.raises(UsageError, match="is not the student's"):
            train_student(talk, adjusted, tmp_path / "student", seed=7, progress=quiet)


# Exact resumption


class Interrupted(Exception):
    pass


PAIRS = [
    [Message(role="user", content="Write."), Message(role="assistant", content=f"No {word}.")]
    for word in "bees rivers bread chess rain maps owls tea yoga trains stars soup".split()
]

RESUMED: dict[str, tuple[dict[str, Any], list[Conversation]]] = {
    "dense, projected": ({"objective": {"sft": 1, "reverse_kl": 1, "hidden": 1}}, []),
    "captured": ({"objective": "forward_kl", "distillation": {"signals": "sampled"}}, []),
    "accumulated": ({"objective": {"sft": 1, "jsd": 1}, "batch_size": 2, "accumulate": 2}, []),
    "adapters": ({"objective": {"sft": 1, "hidden": 1}, "lora": {"rank": 4}}, []),
    "answers of its own": (
        {"objective": {"sft": 1, "jsd": 1}, "distillation": {"lmbda": 0.5, "max_new_tokens": 6}},
        [],
    ),
    "preferences": ({"objective": {"sft": 0.5, "dpo": 1, "forward_kl": 0.1}}, PAIRS),
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_stopped_training_resumes_to_the_same_weights(
    name: str, talk: list[Conversation], config: StudentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, rejected = RESUMED[name]
    adjusted = with_settings(config, **settings, epochs=3)
    train_student(talk, adjusted, tmp_path / "undisturbed", seed=7, progress=quiet, rejected=rejected)

    def stop(line: str) -> None:
        if (locate_checkpoint(tmp_path / "student") / "state.pt").exists():
            raise Interrupted

    monkeypatch.setattr("students.training.training_loop.PROGRESS_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        train_student(talk, adjusted, tmp_path / "student", seed=7, progress=stop, rejected=rejected)
    lines: list[str] = []
    train_student(talk, adjusted, tmp_path / "student", seed=7, progress=lines.append, rejected=rejected)
    assert any("resumes after step 5" in line for line in lines)
    assert_same_student(tmp_path / "student", tmp_path / "undisturbed")


# Answers of the student's own


def test_training_on_own_answers_reduces_the_distance_to_the_teacher(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    settings = {"lmbda": 1.0, "max_new_tokens": 16}
    adjusted = with_settings(config, objective={"sft": 1, "forward_kl": 1}, distillation=settings)
    record = train_student(talk, adjusted, tmp_path / "student", seed=7, progress=quiet)
    assert record.kl_before is not None
    assert record.kl_after is not None
    assert record.kl_after < 0.95 * record.kl_before
    assert all("sft" not in line for line in log_of(tmp_path / "student"))


# Preferences


def test_dpo_makes_chosen_answers_likelier_than_rejected_ones(
    talk: list[Conversation], config: StudentConfig, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    adjusted = with_settings(config, objective="dpo", epochs=10)
    record = train_student(talk, adjusted, tmp_path / "student", seed=7, progress=quiet, rejected=PAIRS)
    losses = [line["loss"] for line in log_of(tmp_path / "student")]
    assert losses[0] == pytest.approx(0.693, abs=0.01), "nothing has changed yet"
    assert losses[-1] < 0.3
    assert record.kl_after is None


# What a recipe may say


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["objective=kl"], "unknown loss 'kl'; known are sft, forward_kl"),
        (["objective={}"], "name or a table of weights"),
        (["objective.sft=0"], "sft = 0: a weight must be a number above 0"),
        (["objective.jsd=inf"], "jsd = inf: a weight must be a number above 0"),
        (["objective=hidden", "distillation.signals=top_k"], "hidden states are not captured"),
        (["objective=jsd", "distillation.signals=sampled"], "jsd: cannot be computed from sampled signals"),
        (["distillation.lmbda=0.5"], "generated answers need a divergence"),
        (["objective=jsd", "distillation.lmbda=1", "distillation.signals=top_k"], "have no captured signals"),
        (["objective={ dpo = 1, jsd = 1 }", "distillation.lmbda=0.1"], "dpo learns from given answers"),
        (["objective=dpo", "patience=3"], "does not measure how well preferences are learned"),
        (["lora={}", "start=random"], "these keys need trained ones"),
        (["decay=0.95"], "less than or equal to 0.9"),
        (["distillation.alpha_beta=[0, 0]"], "nothing is compared"),
        (["distillation.beta=1.5"], "less than or equal to 1"),
        (["distillation.draws=300"], "less than or equal to 255"),
    ],
)
def test_contradictory_settings_are_refused_in_a_sentence(settings: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        parse_settings(StudentConfig, settings)


def test_a_dataset_is_distilled_by_command_and_pairs_too(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    rows = [[message.model_dump(include={"role", "content"}) for message in one] for one in talk]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in rows))
    worse = {"rejected": [{"role": "assistant", "content": "No."}]}
    pairs = [{"prompt": one[:1], "chosen": one[1:], **worse} for one in rows]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    captured = with_settings(config, objective="forward_kl", distillation={"signals": "top_k"}, epochs=2)
    record = distill_dataset(tmp_path / "talk.jsonl", tmp_path / "one", captured, 7, quiet)
    assert record.kl_after is not None
    card = (tmp_path / "one" / "README.md").read_text()
    assert f"| objective | forward_kl, of {config.distillation.teacher} (top_k) |" in card
    assert f"| {record.kl_before:.3f} before, {record.kl_after:.3f} after |" in card
    longer = with_settings(captured, epochs=3)
    with pytest.raises(
        UsageError, match=r"one: exists already and is a student with other settings \(epochs: 2 there, 3 here\)"
    ):
        distill_dataset(tmp_path / "talk.jsonl", tmp_path / "one", longer, 7, quiet)
    (tmp_path / "less.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in rows[1:]))
    with pytest.raises(UsageError, match="one: exists already and is not a student of this data"):
        distill_dataset(tmp_path / "less.jsonl", tmp_path / "one", captured, 7, quiet)
    with hold_folder(tmp_path / "one"), pytest.raises(RunInUse, match="another process is training a student"):
        distill_dataset(tmp_path / "talk.jsonl", tmp_path / "one", captured, 7, quiet)
    assert distill_dataset(tmp_path / "talk.jsonl", tmp_path / "one", captured, 7, quiet) == record, "the control"
    assert not [*tmp_path.glob(".*.lock")]
    mixed = with_settings(config, objective={"dpo": 1, "sft": 0.5}, epochs=2)
    distill_dataset(tmp_path / "pairs.jsonl", tmp_path / "two", mixed, 7, quiet)
    assert {"dpo", "sft"} <= set(log_of(tmp_path / "two")[0])
    assert "| objective | 1 dpo, 0.5 sft |" in (tmp_path / "two" / "README.md").read_text()
    with pytest.raises(UsageError, match="row 1: needs `prompt`, `chosen` and `rejected`"):
        distill_dataset(tmp_path / "talk.jsonl", tmp_path / "three", mixed, 7, quiet)


def test_pairs_stay_aligned_when_conversations_are_left_out(
    talk: list[Conversation], tokenizer: PreTrainedTokenizerBase
) -> None:
    worse: list[Conversation] = [*PAIRS[:3], [Message(role="user", content="Hi")], *PAIRS[4:]]
    better: list[Conversation] = [[Message(role="user", content="Hi")], *talk[1:]]
    data: TrainingData = encode_and_split(better, None, tokenizer, StudentConfig(held_out=0.2), 3, worse)
    assert len(data.train) == len(data.rejected) == 8
    assert (len(data.held_out), sum(map(len, data.unusable.values()))) == (2, 2)
    places = {encode_conversation(one, tokenizer, 256): place for place, one in enumerate(talk)}
    for one, other in zip(data.train, data.rejected, strict=True):
        assert other == encode_conversation(PAIRS[places[one]], tokenizer, 256)
