"""Training a student: a plain loop over a transformers model, from conversations to a folder that others load.

Knows no objective: what a step learns is a `Lesson`. Knows nothing of runs.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from core.errors import RunFailed, UsageError
from core.recipe import StudentConfig
from core.run import StudentRecord
from students.checkpoint import Progressed, remove_checkpoint, resumed, save_checkpoint, training_digest
from students.data import Conversation, Encoded, Prepared, check_tokenizer, epoch_order, pad_id, prepare, stop_ids
from students.distillation import Lesson, gradient_norm, projections
from students.output import Training, finished, write_student
from students.sampling import own_answers
from students.signals import Captured, capture, identity
from students.start import Start, load_start
from students.teacher import TeacherBeside, load_teacher, teacher_digest, tokenizer_digest
from students.vocabulary import trimmed

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises: Adam's first estimates of scale are poor."""
FLOOR = 0.1
"""The last learning rate as a share of the peak, as in Chinchilla (arXiv 2203.15556, appendix B)."""
BETAS = (0.9, 0.95)
"""Of AdamW, as for Llama 2 (arXiv 2307.09288). Weight decay is off: it would shrink words that the data never shows."""
CLIP = 1.0
"""The largest gradient norm, as for Llama 2; a start with missing layers begins with far larger ones."""
TAUGHT = 1e-5
"""The least gradient norm that is no mere rounding."""
PATIENCE = 10
"""Steps in which a teacher must have taught something, beside the text: a student that is still its teacher learns nothing
of it in the first."""
PROGRESS_SECONDS = 5.0

Progress = Callable[[str], None]


def distill(
    conversations: Sequence[Conversation],
    config: StudentConfig,
    out: Path,
    *,
    seed: int,
    progress: Progress,
    held_out: Sequence[Conversation] | None = None,
    rejected: Sequence[Conversation] = (),
) -> StudentRecord:
    """Train a student on `conversations` and write it to `out`, whole or not at all.

    Without `held_out`, `config.held_out` of the conversations are drawn for it by `seed` and not trained on. Called
    again with the same arguments it goes on from its last checkpoint (`.NAME.checkpoint` beside `out`), to the same
    weights as an undisturbed training; once finished, it returns the record that is there. Signals that are captured lie
    in `config.distillation.cache`, or in `NAME.signals` beside `out`, and stay there. `rejected` holds for each of
    `conversations` a worse one to the same prompt, which the objective `dpo` needs.

    Raises:
        UsageError: if `out` holds anything else, the start or the teacher cannot be used, or signals are of something else.
        RunFailed: if there is too little to train on, the loss stops being a number, or the teacher teaches nothing.
    """
    if ("dpo" in config.weights) != bool(rejected):
        raise UsageError(
            "student.objective: dpo learns from pairs of answers, a better and a worse one; give a dataset with the columns "
            "prompt, chosen and rejected, or leave dpo out"
        )
    teacher = teacher_digest(config.distillation.teacher) if config.asks_teacher else ""
    digest = training_digest(
        {"train": conversations, "held_out": held_out or (), "rejected": rejected}, config, seed, teacher
    )
    if record := finished(out, digest):
        progress(f"student: {out} is trained already")
        return record
    began = time.monotonic()
    torch.manual_seed(seed)
    start = load_start(config)
    check_tokenizer(start.tokenizer)
    data = prepare(conversations, held_out, start.tokenizer, config, seed, rejected)
    if config.vocabulary:
        start = trimmed(start, data.train, config.vocabulary)
        data = prepare(conversations, held_out, start.tokenizer, config, seed, rejected)
    progress(
        f"student: {start.made_from}, {start.model.num_parameters() / 1e6:.1f}M parameters; "
        f"{len(data.train)} conversations to learn, {len(data.held_out)} held out, "
        + "".join(f"{count} left out ({why}), " for why, count in data.unusable.items())
        + f"loaded in {time.monotonic() - began:.0f} s"
    )
    lesson = prepared_lesson(start, data, config, out, seed=seed, teacher=teacher, progress=progress)

    done = train(start, data, lesson, config, out, seed=seed, digest=digest, progress=progress)

    start.model.bfloat16().float()  # type: ignore[no-untyped-call]  # the weights as they will be stored
    after = lesson.measured(start.model, data.held_out, pad_id(start.tokenizer))
    record = StudentRecord(
        start=config.start,
        parameters=start.model.num_parameters(),
        train_samples=len(data.train),
        held_out_samples=len(data.held_out),
        steps=done.step,
        loss_before=done.loss_before,
        loss_after=after.loss,
        kl_before=done.kl_before,
        kl_after=after.kl,
        seconds=round(done.seconds, 1),
    )
    write_student(out, start, Training(config, seed, digest, data, record, done.log))
    remove_checkpoint(out)
    kl = "" if after.kl is None else f", KL from the teacher {record.kl_before:.2f} -> {after.kl:.2f}"
    progress(
        f"student: held-out loss {record.loss_before:.2f} -> {record.loss_after:.2f} nats per assistant token{kl} "
        f"after {record.steps} steps in {record.seconds:.0f} s"
    )
    return record


def prepared_lesson(
    start: Start, data: Prepared, config: StudentConfig, out: Path, *, seed: int, teacher: str, progress: Progress
) -> Lesson:
    """The recipe's objectives with the teacher beside the student, or with its signals, captured if they are not there yet.

    `teacher` is the teacher's digest. Draws nothing from torch's global generator, but for projections.
    """
    words = len(start.tokenizer)
    if not config.asks_teacher:
        return Lesson(config, None, words, torch.nn.ModuleList())
    wanted = config.distillation
    if wanted.signals == "dense":
        model = load_teacher(wanted.teacher, start.tokenizer).to(start.model.device)  # type: ignore[arg-type]
        layers = "hidden" in config.weights
        learned_along = projections(start.model, model) if layers else torch.nn.ModuleList()
        return Lesson(config, TeacherBeside(model, words, wanted.temperature, hidden=layers), words, learned_along)
    path = Path(wanted.cache) if wanted.cache else out.with_name(f"{out.name}.signals")
    is_of = identity(wanted, tokenizer=tokenizer_digest(start.tokenizer), teacher=teacher, words=words, seed=seed)
    texts = [*data.train, *data.held_out]
    if not path.exists():
        model = load_teacher(wanted.teacher, start.tokenizer)
        capture(model, texts, is_of, path, pad=pad_id(start.tokenizer), progress=progress)
    captured = Captured(path, is_of)
    captured.check(texts)
    return Lesson(config, captured, words, torch.nn.ModuleList())


def train(
    start: Start,
    data: Prepared,
    lesson: Lesson,
    config: StudentConfig,
    out: Path,
    *,
    seed: int,
    digest: str,
    progress: Progress,
) -> Progressed:
    """Train `start.model` in place, from its last checkpoint if there is one."""
    model, pad = start.model, pad_id(start.tokenizer)
    learner = torch.nn.ModuleDict({"student": model, "projections": lesson.projections})
    optimizer = torch.optim.AdamW(learner.parameters(), betas=BETAS, weight_decay=0.0, fused=True)
    steps = math.ceil(len(data.train) / config.batch_size) * config.epochs
    began = time.monotonic()
    if data.rejected:
        lesson.refer_to(model, [*data.train, *data.rejected], pad)
    done = resumed(out, digest, learner, optimizer, progress)
    if done is None:
        before = lesson.measured(model, data.held_out, pad)
        done = Progressed(step=0, loss_before=before.loss, kl_before=before.kl, seconds=0.0, log=[])
    began -= done.seconds
    unproven = lesson.teaches
    deadline = min(done.step + (PATIENCE if "sft" in config.weights else 1), steps)
    told, tokens = time.monotonic(), 0
    model.train()

    for step in range(done.step, steps):
        encoded, rejected = _examples(data, config.batch_size, step, seed)
        rate = learning_rate(step, steps, config.learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = rate

        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            own = _own_answers(start, encoded, config, step, seed)
            terms = lesson.terms(model, own or encoded, pad, rejected=rejected, own=bool(own))
            loss = terms.total(config.weights)
        mean = loss.item()
        if not math.isfinite(mean):
            raise RunFailed(
                f"student: the loss is {mean} at step {step + 1}; lower learning_rate = {config.learning_rate}"
            )
        if unproven:
            unproven = gradient_norm(terms.taught().total(config.weights), learner) < TAUGHT
            if unproven and step + 1 >= deadline:
                raise RunFailed(_nothing_taught(config))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(learner.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

        parts = {name: value.item() for name, value in terms.values.items()} if len(config.weights) > 1 else {}
        done.log.append({"step": step + 1, "loss": mean, "lr": rate, "tokens": terms.tokens, **parts})
        done = done._replace(step=step + 1, seconds=time.monotonic() - began)
        tokens += sum(len(one.ids) for one in (*(own or encoded), *rejected))
        if (passed := time.monotonic() - told) > PROGRESS_SECONDS:
            progress(f"student: step {done.step}/{steps}, loss {mean:.2f}, {tokens / passed:.0f} tokens/s")
            told, tokens = time.monotonic(), 0
        if done.step % config.checkpoint_steps == 0 and done.step < steps:
            save_checkpoint(out, digest, learner, optimizer, done)

    return done


def _examples(data: Prepared, size: int, step: int, seed: int) -> tuple[list[Encoded], list[Encoded]]:
    """The conversations of a step, and the worse ones that they are paired with, if any."""
    epoch, place = divmod(step, math.ceil(len(data.train) / size))
    order = epoch_order(len(data.train), seed, epoch)[place * size :][:size]
    return [data.train[index] for index in order], [data.rejected[index] for index in order if data.rejected]


def _own_answers(
    start: Start, encoded: Sequence[Encoded], config: StudentConfig, step: int, seed: int
) -> list[Encoded] | None:
    """Those of the student in the place of the given ones, in the share of the steps that the recipe says."""
    chance = random.Random(f"own answers {step} of {seed}")
    if chance.random() >= config.distillation.lmbda:
        return None
    return own_answers(
        start.model,
        encoded,
        stop=stop_ids(start.tokenizer),
        pad=pad_id(start.tokenizer),
        max_new_tokens=config.distillation.max_new_tokens,
        temperature=config.distillation.temperature,
        seed=chance.getrandbits(63),
    )


def _nothing_taught(config: StudentConfig) -> str:
    names = ", ".join(name for name in config.weights if name != "sft")
    return (
        f"student: {names} had no gradient, so the teacher taught nothing; the student may be its teacher already: choose "
        "fewer layers, another start or another teacher"
    )


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Of step `step`, counted from 0: a straight rise to `peak` over the first tenth, then half a cosine to a tenth."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return peak * (step + 1) / warm
    fallen = (1 - math.cos(math.pi * (step - warm + 1) / (steps - warm))) / 2
    return peak * (1 - (1 - FLOOR) * fallen)
