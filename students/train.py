"""Training a student: a plain loop over a transformers model, from conversations to a folder that others load.

Knows one objective, `sft`: cross-entropy on what the assistant says. Knows nothing of runs, nor of the teacher's
probabilities.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from core.errors import RunFailed
from core.recipe import StudentConfig
from core.run import StudentRecord
from students.checkpoint import Progressed, remove_checkpoint, resumed, save_checkpoint, training_digest
from students.data import Conversation, Prepared, batched, check_tokenizer, epoch_order, pad_id, prepare
from students.evaluate import held_out_loss, token_loss
from students.output import Training, finished, write_student
from students.start import Start, load_start
from students.vocabulary import trimmed

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises: Adam's first estimates of scale are poor."""
FLOOR = 0.1
"""The last learning rate as a share of the peak, as in Chinchilla (arXiv 2203.15556, appendix B)."""
BETAS = (0.9, 0.95)
"""Of AdamW, as for Llama 2 (arXiv 2307.09288). Weight decay is off: it would shrink words that the data never shows."""
CLIP = 1.0
"""The largest gradient norm, as for Llama 2; a start with missing layers begins with far larger ones."""
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
) -> StudentRecord:
    """Train a student on `conversations` and write it to `out`, whole or not at all.

    Without `held_out`, `config.held_out` of the conversations are drawn for it by `seed` and not trained on. Called
    again with the same arguments it goes on from its last checkpoint (`.NAME.checkpoint` beside `out`), to the same
    weights as an undisturbed training; once finished, it returns the record that is there.

    Raises:
        UsageError: if `out` holds anything else, or the start cannot be used.
        RunFailed: if there is too little to train on, or the loss stops being a number.
    """
    digest = training_digest(conversations, held_out, config, seed)
    if record := finished(out, digest):
        progress(f"student: {out} is trained already")
        return record
    began = time.monotonic()
    torch.manual_seed(seed)
    start = load_start(config)
    check_tokenizer(start.tokenizer)
    data = prepare(conversations, held_out, start.tokenizer, config, seed)
    if config.vocabulary:
        start = trimmed(start, data.train, config.vocabulary)
        data = prepare(conversations, held_out, start.tokenizer, config, seed)
    progress(
        f"student: {start.made_from}, {start.model.num_parameters() / 1e6:.1f}M parameters; "
        f"{len(data.train)} conversations to learn, {len(data.held_out)} held out, "
        + "".join(f"{count} left out ({why}), " for why, count in data.unusable.items())
        + f"loaded in {time.monotonic() - began:.0f} s"
    )

    done = train(start, data, config, out, seed=seed, digest=digest, progress=progress)

    start.model.bfloat16().float()  # type: ignore[no-untyped-call]  # the weights as they will be stored
    record = StudentRecord(
        start=config.start,
        parameters=start.model.num_parameters(),
        train_samples=len(data.train),
        held_out_samples=len(data.held_out),
        steps=done.step,
        loss_before=done.loss_before,
        loss_after=held_out_loss(start.model, data.held_out, pad_id(start.tokenizer)),
        seconds=round(done.seconds, 1),
    )
    write_student(out, start, Training(config, seed, digest, data, record, done.log))
    remove_checkpoint(out)
    progress(
        f"student: held-out loss {record.loss_before:.2f} -> {record.loss_after:.2f} nats per assistant token "
        f"after {record.steps} steps in {record.seconds:.0f} s"
    )
    return record


def train(
    start: Start, data: Prepared, config: StudentConfig, out: Path, *, seed: int, digest: str, progress: Progress
) -> Progressed:
    """Train `start.model` in place, from its last checkpoint if there is one."""
    model, pad = start.model, pad_id(start.tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), betas=BETAS, weight_decay=0.0, fused=True)
    steps_an_epoch = math.ceil(len(data.train) / config.batch_size)
    steps = steps_an_epoch * config.epochs
    began = time.monotonic()
    done = resumed(out, digest, model, optimizer, progress)
    if done is None:
        done = Progressed(step=0, loss_before=held_out_loss(model, data.held_out, pad), seconds=0.0, log=[])
    began -= done.seconds
    told, tokens = time.monotonic(), 0
    model.train()

    for step in range(done.step, steps):
        epoch, place = divmod(step, steps_an_epoch)
        order = epoch_order(len(data.train), seed, epoch)[place * config.batch_size :][: config.batch_size]
        batch = batched([data.train[index] for index in order], pad)
        rate = learning_rate(step, steps, config.learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = rate

        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            loss = token_loss(model, batch)
        mean = loss.mean.item()
        if not math.isfinite(mean):
            raise RunFailed(
                f"student: the loss is {mean} at step {step + 1}; lower learning_rate = {config.learning_rate}"
            )
        torch.autograd.backward(loss.mean)
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

        done.log.append({"step": step + 1, "loss": mean, "lr": rate, "tokens": loss.tokens})
        done = done._replace(step=step + 1, seconds=time.monotonic() - began)
        tokens += int(batch.attention.sum())
        if (passed := time.monotonic() - told) > PROGRESS_SECONDS:
            progress(f"student: step {done.step}/{steps}, loss {mean:.2f}, {tokens / passed:.0f} tokens/s")
            told, tokens = time.monotonic(), 0
        if done.step % config.checkpoint_steps == 0 and done.step < steps:
            save_checkpoint(out, digest, model, optimizer, done)

    return done


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Of step `step`, counted from 0: a straight rise to `peak` over the first tenth, then half a cosine to a tenth."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return peak * (step + 1) / warm
    fallen = (1 - math.cos(math.pi * (step - warm + 1) / (steps - warm))) / 2
    return peak * (1 - (1 - FLOOR) * fallen)
