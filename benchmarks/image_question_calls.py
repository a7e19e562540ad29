"""Counts the calls and the bytes of images that a run of `image-questions` takes for a sample. A scripted teacher answers; its
faults are in its script. RUN is a finished run of another teacher.

Without PHOTOS, it counts what a reader kept of 24 recorded samples, and which answers the recorded looks confirm: the writer's,
and as controls the first guesses without the image that differ from it, and the answers of the next samples.

python -m benchmarks.image_question_calls [PHOTOS or RUN] [--samples N]
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agents.checks.text.second_reader import ReaderAnswer
from benchmarks.children import PROJECT, run_process
from core.runs.run_dir import RunDir
from core.sample import SampleStatus
from core.storage.image_files import find_image_file
from core.storage.recording import RecordedSample, read_recording
from flows.data.curated_run import read_finished_samples
from plugins.pictures.families.image_questions import AskedAboutImage, ImageQuestionDraft

SAMPLES = 200
RECORDING = PROJECT / "benchmarks/recordings/scenes/image-questions.jsonl"
FIRST_LOOK = 300
"""Numbers of attempts from which replies are looks: those of three guesses are lower."""
COLORS = frozenset("black blue brown gray green grey orange pink purple red silver white yellow".split())
ROLES = {"draft": "drafts", "look": "looks", "guess": "guesses"}


def count_calls(run: RunDir) -> Counter[str]:
    counts = Counter[str]()
    for sample in read_finished_samples(run):
        counts["samples"] += 1
        counts["verified"] += sample.state is SampleStatus.kept
        sizes = [find_image_file(name, [run.path]).stat().st_size for name in sample.candidate.images]
        for turn in sample.turns:
            guesses = bool(turn.context) and turn.context[0].content.startswith("You guess")
            role = "draft" if turn.agent == "generator" else "guess" if guesses else "look"
            counts[role] += 1
            counts["bytes"] += 0 if guesses else sum(sizes) * 4 // 3
    return counts


def format_measurement(photos: Path, samples: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            f"images.folder={photos.resolve()}",
            f"samples={samples}",
            "teachers.main={model='fake/image_questions'}",
        ]
        options = [part for setting in settings for part in ("--set", setting)]
        ended = run_process(
            [
                str(Path(sys.executable).with_name("stillhouse")),
                "run",
                "image-questions",
                *options,
                "--runs-dir",
                folder,
            ]
        )
        if ended.code:
            sys.exit(f"the run ended with {ended.code}: {ended.err[-2000:]}")
        counts = count_calls(RunDir(next(Path(folder).glob("image-questions-*"))))
    return describe_calls(counts)


def describe_calls(counts: Counter[str]) -> str:
    samples, calls, seen = counts["samples"], sum(counts[role] for role in ROLES), counts["draft"] + counts["look"]
    roles = ", ".join(f"{counts[role]} {name}" for role, name in ROLES.items())
    each = f"{calls / samples:.2f} calls a sample, {seen / samples:.2f} with the image, {counts['bytes'] / samples / 1e3:.0f} kB"
    return f"{samples} samples, {counts['verified']} kept: {calls} calls ({roles}); {each}"


class RecordedQuestion(NamedTuple):
    """The last draft of a recorded sample."""

    asked: AskedAboutImage
    looks: list[ReaderAnswer]
    guess: str
    drafts: int

    @classmethod
    def of(cls, sample: RecordedSample) -> "RecordedQuestion":
        drafts = [
            ImageQuestionDraft.model_validate_json(one.reply) for one in sample.replies if one.agent == "generator"
        ]
        last = [one for one in sample.replies if one.agent == "verifier" and one.revision == len(drafts) - 1]
        readings = [(one.attempt >= FIRST_LOOK, ReaderAnswer.model_validate_json(one.reply)) for one in last]
        looks = [reading for is_look, reading in readings if is_look]
        asked = AskedAboutImage(drafts[-1].question, drafts[-1].answer)
        return cls(asked, looks, next(reading.answer for is_look, reading in readings if not is_look), len(drafts))

    def is_confirmed(self, answer: str) -> bool:
        """Whether two looks found it."""
        return sum(self.asked._replace(answer=answer).is_seen_by(look) for look in self.looks) > 1


def list_arms(questions: Sequence[RecordedQuestion]) -> dict[str, list[str | None]]:
    """The answers of the writer and of the controls; None where a control has none."""
    answers = [one.asked.answer for one in questions]
    guesses = [
        None if one.asked.is_guessed_by(ReaderAnswer(found=True, answer=one.guess)) else one.guess for one in questions
    ]
    return {"writer": [*answers], "differing guesses": guesses, "next samples": [*answers[1:], answers[0]]}


def count_confirmed(questions: Sequence[RecordedQuestion], answers: Sequence[str | None]) -> tuple[int, int]:
    """The answers that the looks confirm, and all that there are."""
    pairs = [(one, answer) for one, answer in zip(questions, answers, strict=True) if answer is not None]
    return sum(one.is_confirmed(answer) for one, answer in pairs), len(pairs)


def format_recording() -> str:
    questions = [RecordedQuestion.of(sample) for sample in read_recording(RECORDING)]
    lines = RECORDING.with_suffix(".verdicts.jsonl").read_text(encoding="utf-8").splitlines()
    judges = list(zip(*(json.loads(line)["judges"] for line in lines), strict=True))
    right, kept = ([sum(one[word] for one in verdicts) for verdicts in judges] for word in ("right", "keep"))
    answers = [one.asked.answer for one in questions]
    confirmed = {name: count_confirmed(questions, given) for name, given in list_arms(questions).items()}
    colors = sum(bool(COLORS & set(answer.casefold().split())) for answer in answers)
    return (
        f"{len(questions)} samples, {sum(one.drafts for one in questions)} drafts, {colors} answers with a color; judges find "
        f"{right} right and would keep {kept}; two looks confirm, of answers, {confirmed}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    asked = parser.parse_args()
    if not asked.photos:
        text = format_recording()
    elif (asked.photos / "manifest.json").is_file():
        text = describe_calls(count_calls(RunDir(asked.photos)))
    else:
        text = format_measurement(asked.photos, asked.samples)
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
