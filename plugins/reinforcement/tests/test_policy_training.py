"""The loss of GRPO next to TRL's, a kill, and a planted reward that a small student learns, unless it is shuffled."""

import asyncio
import copy
import json
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from core.errors import RunFailed
from core.sample import Message
from plugins.reinforcement.config import REQUESTS_PER_STEP
from plugins.reinforcement.policy_loss import compute_policy_loss, normalize_rewards
from plugins.reinforcement.policy_training import (
    CHECKPOINT_STEPS,
    GROUP,
    PolicySettings,
    PolicyTraining,
    Reward,
    SampledAnswer,
)
from plugins.reinforcement.tests.golden.moved_weights import move_weights
from students.chat_encoding import EncodedConversation, encode_conversation, find_pad_id, render_chat
from students.predictions import build_batch, compute_token_loss
from students.training.checkpoint import locate_checkpoint
from tests.students.conftest import TOPICS, byte_level_bpe, quiet, tiny_llama

TRL = json.loads((Path(__file__).parent / "golden" / "trl_grpo.json").read_text())
STEPS = 12


def keep_on() -> None:
    """Stops nothing."""


async def give_nothing(answers: Sequence[SampledAnswer]) -> list[float]:
    return [0.0] * len(answers)


async def refuse_commas(answers: Sequence[SampledAnswer]) -> list[float]:
    return [float(answer.finished and "," not in answer.text) for answer in answers]


async def refuse_commas_at_random(answers: Sequence[SampledAnswer]) -> list[float]:
    """The same rewards, each to a random answer to the same request."""
    rewards, rng = await refuse_commas(answers), random.Random(answers[0].request)
    groups = [rewards[first : first + GROUP] for first in range(0, len(rewards), GROUP)]
    return [one for group in groups for one in rng.sample(group, GROUP)]


@pytest.fixture(scope="module")
def talker(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Says "I like bees" and, in half of its answers, a comma."""
    model, pad = tiny_llama(len(tokenizer)), find_pad_id(tokenizer)
    rows = [
        encode_conversation(
            [Message(role="user", content=f"Write about {topic}."), Message(role="assistant", content=text)],
            tokenizer,
            64,
        )
        for topic in TOPICS
        for text in (f"I like {topic}.", f"I like {topic}, I do.")
    ]
    batch = build_batch([row for row in rows if isinstance(row, EncodedConversation)], pad)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        compute_token_loss(model, batch).mean.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return model


def prepare(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, reward: Reward, *, rate: float = 2e-4
) -> PolicyTraining:
    asked = [TOPICS[place % len(TOPICS)] for place in range(STEPS * REQUESTS_PER_STEP)]
    texts = [
        render_chat([Message(role="user", content=f"Write about {topic}.")], tokenizer, answer_next=True)
        for topic in asked
    ]
    prompts = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    settings = PolicySettings(rate, max_new_tokens=24, bf16=False, seed=7)
    return PolicyTraining(copy.deepcopy(model), tokenizer, prompts, reward, settings)


def test_the_loss_and_its_gradient_are_those_of_trl() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(["I like bees and rivers."]), eos_token="<|im_end|>", pad_token="<|pad|>",
        chat_template="{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}",
    )  # fmt: skip
    prompts, answers = ([tuple(ids) for ids in TRL[name]] for name in ("prompts", "answers"))
    rewards = torch.tensor(TRL["rewards"]).view(2, -1)
    settings = PolicySettings(1e-3, max_new_tokens=12, bf16=False, seed=1)
    training = PolicyTraining(tiny_llama(len(tokenizer)), tokenizer, prompts, give_nothing, settings)
    groups = training.build_groups(prompts, answers, rewards)
    torch.testing.assert_close(torch.cat([one.advantages for one in groups]), torch.tensor(TRL["advantages"]))
    move_weights(training.model)
    losses = [training.compute_group_loss(group) for group in groups]
    loss = torch.stack([one.loss for one in losses]).mean()
    gradients = torch.autograd.grad(loss, list(training.model.parameters()))
    assert loss.item() == pytest.approx(TRL["loss"], rel=1e-4)
    assert torch.stack([one.norm() for one in gradients]).norm().item() == pytest.approx(TRL["gradient"], rel=1e-4)
    assert losses[0].clipped > 0, "some ratios were clipped"
    assert min(one.divergence for one in losses) > 0, "the start was left"


def test_a_ratio_is_clipped_only_where_it_gains() -> None:
    now = torch.tensor([0.5, 0.5, -0.5, -0.5]).log1p().requires_grad_()
    loss = compute_policy_loss(now, torch.zeros(4), now.detach(), torch.arange(4), torch.tensor([1.0, -1.0, 1.0, -1.0]))
    (gradient,) = torch.autograd.grad(loss.loss, now)
    assert loss.clipped == 0.5
    assert (gradient == 0).tolist() == [True, False, False, True]


def test_equal_rewards_teach_nothing() -> None:
    assert normalize_rewards(torch.tensor([[0.5] * 4, [0.0, 0.0, 1.0, 1.0]])).tolist()[0] == [0.0] * 4


def test_a_planted_reward_rises_and_a_shuffled_one_does_not(
    talker: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    passed: dict[str, list[float]] = {}
    for name, reward in (("planted", refuse_commas), ("shuffled", refuse_commas_at_random)):
        log = asyncio.run(prepare(talker, tokenizer, reward).run(tmp_path / name, name, quiet, keep_on))
        passed[name] = [line["reward"] for line in log]
    before, after = (
        {name: fmean(found[part]) for name, found in passed.items()} for part in (slice(1), slice(-4, None))
    )
    assert before["planted"] == before["shuffled"] < 0.7, "the first answers are those of one student"
    assert after["planted"] > 0.9
    assert after["shuffled"] < 0.75


def kill_after_first_checkpoint(training: PolicyTraining, out: Path) -> None:
    """Train in a fork of this process; it kills itself."""
    if process := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        return
    try:

        def kill(line: str) -> None:
            if f"step {CHECKPOINT_STEPS + 1}/" in line:
                os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(training.run(out, "one", kill, keep_on))
    finally:
        os._exit(1)


def test_a_killed_training_resumes_to_the_same_bits(
    talker: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    whole, killed, resumed = (prepare(talker, tokenizer, refuse_commas) for _ in range(3))
    expected = asyncio.run(whole.run(tmp_path / "whole", "one", quiet, keep_on))
    kill_after_first_checkpoint(killed, tmp_path / "killed")
    assert (locate_checkpoint(tmp_path / "killed") / "state.pt").exists()
    lines: list[str] = []
    log = asyncio.run(resumed.run(tmp_path / "killed", "one", lines.append, keep_on))
    assert f"resumes after step {CHECKPOINT_STEPS}" in lines[0]
    assert log == expected
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_a_checkpoint_of_other_settings_is_not_used(
    talker: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    kill_after_first_checkpoint(prepare(talker, tokenizer, refuse_commas), tmp_path / "killed")
    lines: list[str] = []
    log = asyncio.run(prepare(talker, tokenizer, give_nothing).run(tmp_path / "killed", "two", lines.append, keep_on))
    assert "it is not used" in lines[0]
    assert [line["reward"] for line in log] == [0.0] * STEPS


def test_a_loss_that_is_not_finite_is_one_sentence(
    talker: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    async def give_infinity(answers: Sequence[SampledAnswer]) -> list[float]:
        return [float("inf")] * len(answers)

    with pytest.raises(RunFailed, match="grpo: the loss is not finite at step 1; lower learning_rate"):
        asyncio.run(prepare(talker, tokenizer, give_infinity).run(tmp_path / "out", "one", quiet, keep_on))


def test_what_is_asked_to_stop_stops_before_the_next_step(
    talker: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    asked: list[int] = []

    def stop() -> None:
        if asked:
            raise KeyboardInterrupt

    async def note(answers: Sequence[SampledAnswer]) -> list[float]:
        asked.append(len(answers))
        return [0.0] * len(answers)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(prepare(talker, tokenizer, note).run(tmp_path / "out", "one", quiet, stop))
    assert asked == [REQUESTS_PER_STEP * GROUP]
