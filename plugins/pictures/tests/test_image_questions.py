"""The family `image_questions`: who is shown an image and who is not, what the checks drop, and a verifier that really sees."""

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("PIL", reason="needs the extra `pictures`")

from PIL import Image

from agents.checks import Subject
from core.errors import RecipeError
from core.runs.run_dir import RunDir
from core.sample import Message, RejectionReason, Sample, SampleStatus, Seed
from core.storage.image_files import JPEG_START, decode_image_url
from core.storage.sample_files import write_samples
from flows.data.curated_run import read_kept_rows
from flows.data.dataset_formats import format_dataset
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.pictures.families.image_questions import (
    ImageQuestionsFamily,
    ImageQuestionsOptions,
    WellPosedOptions,
    well_posed_check,
)
from plugins.pictures.statistics import PicturesRecord
from students.gguf_export import export_gguf
from students.training.student_training import train_student
from teachers.base import TeacherQuestion
from tests.students.conftest import quiet
from tests.support.colored_pictures import COLORS, QUESTION, draw_square
from tests.support.forked import FORKS
from tests.support.scripted_teacher import ScriptedTeacher, produce_scripted
from tests.support.seeing_students import build_seeing_config

SHOWN = "ReaderAnswer"


def write_squares(folder: Path, number: int, seed: int = 0) -> Path:
    """PNGs of one colored square each."""
    folder.mkdir()
    rng = Random(seed)
    for place in range(number):
        url = draw_square(COLORS[place % len(COLORS)], rng)
        (folder / f"{place:03d}.png").write_bytes(decode_image_url(url))
    return folder


def see_color(message: Message) -> str:
    """The color of the square in a message, by its pixels."""
    with Image.open(io.BytesIO(decode_image_url(message.images[0]))) as image:
        [(_, pixel)] = [found for found in image.convert("RGB").getcolors() or () if found[1] != (255, 255, 255)]
        return next(color for color in COLORS if Image.new("RGB", (1, 1), color).getpixel((0, 0)) == pixel)


def pose(subject: dict[str, str]) -> str | None:
    draft = ImageQuestionsFamily().reply_type(Seed(id="x-000000", data={})).model_validate(subject)
    candidate = ImageQuestionsFamily().candidate(Seed(id="x-000000", data={}), draft)
    found = well_posed_check.run(Subject(Seed(id="x-000000", data={}), candidate, None), WellPosedOptions())  # type: ignore[arg-type]
    assert found is None or isinstance(found, str)
    return found


@pytest.mark.parametrize(
    ("question", "answer", "words"),
    [
        ("Which color is the door?", "Green", None),
        ("What is on the sign above the door?", "No entry, deliveries at the back", None),
        ("Name the color of the door.", "Green", "ask one question"),
        ("Is it green? Is it red?", "Green", "ask one question"),
        ("Which color is the door?", " ".join(["green"] * 13), "answer in one line of at most 12 words"),
        ("Which color is the door?", "green\nor red", "answer in one line"),
        ("Which color is the door?", "!?", "says nothing"),
        ("What does the file name say?", "door", "speaks of 'file name'"),
        ("Which color has it, as in the previous question?", "Green", "speaks of 'previous question'"),
        ("What color is the red car?", "red", "gives its answer 'red' away"),
        ("Is the car red or blue?", "red", None),
        ("Is the door open?", "Yes", None),
        ("What does the caption under the figure say?", "Sales of 2024", None),
        ("Which key is first in the JSON on the screen?", "name", None),
        ("ドアは何色ですか？", "緑", None),
        ("What follows “Who are you?” on the sign?", "A friend", None),
    ],
)
def test_what_is_well_posed(question: str, answer: str, words: str | None) -> None:
    found = pose({"question": question, "answer": answer})
    assert (found is None) if words is None else (words in str(found))


def make(folder: Path, answer: Callable[[TeacherQuestion], dict[str, Any]]) -> tuple[list[Sample], ScriptedTeacher]:
    plan = load_recipe_plan(
        "image-questions",
        [f"images.folder={write_squares(folder / 'images', 12)}", "samples=24", "topology.max_revisions=0",
         "teachers.main={model='fake/image_questions'}"],
    )  # fmt: skip
    teacher = ScriptedTeacher(lambda question: json.dumps(answer(question)))
    return produce_scripted(plan, teacher, folder), teacher


def test_an_answer_is_kept_if_the_image_shows_it_again_and_its_question_does_not(tmp_path: Path) -> None:
    """Of four questions one is right, one has a wrong answer, one is known without the image, and one is no question."""
    kinds: Counter[str] = Counter()

    def reply(question: TeacherQuestion) -> dict[str, Any]:
        last = question.messages[-1]
        if question.contract != SHOWN:
            kind = ("right", "wrong", "known", "form")[kinds.total() % 4]
            kinds[kind] += 1
            color = see_color(last)
            made = {
                "right": (QUESTION, color),
                "wrong": (QUESTION, "orange"),
                "known": ("How many sides has the square?", "4"),
            }
            asked, answer = made.get(kind, ("Tell me the color.", color))
            return {"kind": 2, "question": asked, "answer": answer}
        if "sides" in last.content:
            return {"found": True, "answer": "Four" if last.images else "4"}
        return {"found": True, "answer": see_color(last).title()} if last.images else {"found": True, "answer": "beige"}

    samples, teacher = make(tmp_path, reply)
    reasons = Counter(sample.detail.split(":")[0] if sample.reason else "kept" for sample in samples)
    assert kinds == {"right": 6, "wrong": 6, "known": 6, "form": 6}
    assert reasons == {"kept": 6, "seen_again": 6, "needs_image": 6, "well_posed": 6}
    for sample in samples:
        assert sample.candidate.images[0].startswith("data:image/png;base64,"), "until the run stores it"
        assert all(not message.images for turn in sample.turns for message in turn.context), (
            "calls are recorded without images"
        )
        if sample.state is SampleStatus.kept:
            assert sample.answer == see_color(sample.candidate.messages[0])
    run = RunDir(tmp_path / "mine-00000000")
    for file in (run.shard_file(0), run.kept_file(0)):
        write_samples(file, [sample for sample in samples if sample.state is SampleStatus.kept])
    form = format_dataset("messages", [read_kept_rows(run)] * 2)
    files = {sample.id: (sample.candidate.fields["kind"], sample.seed.data["source"]) for sample in samples}
    assert all(sample.candidate.fields["kind"] == sample.seed.data["kinds"][1] for sample in samples)
    assert all(files[row["id"]] == (row["kind"], row["source"]) for row in form.parts[0].iter_rows(named=True))
    shown = Counter(
        (question.messages[0].content[:11], bool(question.messages[-1].images)) for question in teacher.asked
    )
    assert shown == {
        ("You look at", True): 24,
        ("You guess t", False): 6 + 6 + 3 * 6,  # one that differs is enough; the known ones take three
        ("You answer ", True): 2 * 6 + 2 * 6,  # two equal looks, or two others
    }
    for sample in samples:
        if sample.state is SampleStatus.kept:
            evidence = [verdict.evidence for verdict in sample.verdicts]
            assert "0 of 1 guesses without the image" in evidence[1]
            assert "2 of 2 looks at the image found" in evidence[2]


@pytest.mark.parametrize(
    ("guesses", "agree", "kept", "asked"),
    [
        ("red blue red", "", True, 2),
        ("red red red", "", False, 3),
        ("red red blue", ",agree=2", False, 2),
        ("blue red blue", ",agree=2", True, 3),
        ("? red red", "", False, 3),
        ("? ? blue", "", True, 3),
    ],
)
def test_a_question_is_dropped_if_all_guesses_find_its_answer(
    guesses: str, agree: str, kept: bool, asked: int, tmp_path: Path
) -> None:
    """What two of three guess may only be frequent. A reply that cannot be read is no guess."""
    replies = iter(guesses.split())
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(decode_image_url(draw_square("red", Random(1))))

    def reply(question: TeacherQuestion) -> str:
        if question.contract != SHOWN:
            return json.dumps({"question": QUESTION, "answer": "red"})
        guess = "red" if question.messages[-1].images else next(replies)
        return json.dumps({"found": True, "answer": guess}) if guess != "?" else "?"

    checks = f"verifiers=[{{type='needs_image'{agree}}}]"
    plan = load_recipe_plan(
        "image-questions",
        [f"images.folder={tmp_path / 'images'}", "samples=1", "topology.max_revisions=0", checks,
         "agents.verifier.max_repairs=0", "teachers.main={model='fake/image_questions'}"],
    )  # fmt: skip
    [sample] = produce_scripted(plan, ScriptedTeacher(reply), tmp_path)
    assert (sample.state is SampleStatus.kept) is kept
    assert len(list(replies)) == 3 - asked


def test_nothing_is_kept_if_each_look_finds_another_color(tmp_path: Path) -> None:
    """The control: right drafts, and a reader who sees the image and is always wrong."""
    looks = Counter[str]()

    def reply(question: TeacherQuestion) -> dict[str, Any]:
        last = question.messages[-1]
        if question.contract != SHOWN:
            return {"question": QUESTION, "answer": see_color(last)}
        if not last.images:
            return {"found": False, "answer": ""}
        color = see_color(last)
        looks[color] += 1
        return {"found": True, "answer": COLORS[(COLORS.index(color) + 1) % len(COLORS)]}

    samples, _ = make(tmp_path, reply)
    assert {sample.reason for sample in samples} == {RejectionReason.verifier}
    assert looks.total() == 2 * 24, "two other answers leave no two that agree"


def test_a_damaged_image_costs_its_samples_and_not_the_run(tmp_path: Path) -> None:
    def reply(question: TeacherQuestion) -> dict[str, Any]:
        last = question.messages[-1]
        if question.contract != SHOWN:
            return {"question": QUESTION, "answer": see_color(last)}
        return {"found": True, "answer": see_color(last) if last.images else "orange"}

    folder = tmp_path / "images"
    whole = folder / "000.png"
    make(tmp_path, reply)
    png = whole.read_bytes()
    whole.write_bytes(png[: len(png) // 2])  # its header is whole, so only its pixels tell
    plan = load_recipe_plan(
        "image-questions", [f"images.folder={folder}", "samples=24", "teachers.main={model='fake/image_questions'}"]
    )
    samples = produce_scripted(plan, ScriptedTeacher(lambda question: json.dumps(reply(question))), tmp_path / "images")
    dropped = [sample for sample in samples if sample.state is SampleStatus.dropped]
    assert [sample.seed.data["source"] for sample in dropped] == ["000.png", "000.png"]
    assert {sample.reason for sample in dropped} == {RejectionReason.quality}
    assert "an image of the seed cannot be decoded" in dropped[0].detail
    assert sum(sample.state is SampleStatus.kept for sample in samples) == 22


@pytest.mark.parametrize(
    ("blind", "kept"),
    [
        ({"found": False, "answer": ""}, True),
        ({"found": False, "answer": "red"}, False),
        ({"found": True, "answer": "red"}, False),
        ({"found": True}, False),
        ({"found": True, "answer": "a blue one"}, True),
    ],
)
def test_a_guess_counts_whatever_its_writer_is_sure_of(blind: dict[str, Any], kept: bool, tmp_path: Path) -> None:
    """Replies that cannot be read are no guesses, so they do not show that the image is needed."""

    def reply(question: TeacherQuestion) -> dict[str, Any]:
        if question.contract != SHOWN:
            return {"question": QUESTION, "answer": "red"}
        return {"found": True, "answer": "Red."} if question.messages[1].images else blind

    samples, _ = make(tmp_path, reply)
    assert {sample.state is SampleStatus.kept for sample in samples} == {kept}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["teachers.main={model='local/smollm2-135m'}"], "takes no images, which generator, verifier would be shown"),
        (["seeds.bootstrap=true"], "seeds.bootstrap: no sample is one of the images that others could be made from"),
        (["images.folder='nowhere'"], "nowhere: the images cannot be read: No such file or directory"),
        (["seeds.source='imges'"], "seeds.source: unknown source 'imges'; did you mean 'images'?"),
        (
            ["seeds={path='data/seeds/topics.jsonl'}"],
            'image_questions does not take it; it needs seeds.source = "images"',
        ),
        (["seeds={}"], 'image_questions needs seeds.source = "images"'),
        (["seeds={recording='x.jsonl'}"], "a recording has no images"),
        (["topology.kind='decentralized'"], "debaters are shown no images"),
        (["task.kinds={}"], "kinds"),
        (["task.kinds={reading=0}"], "needs at least one kind with a weight above 0"),
        (["verifiers=[{type='seen_again',votes=2,agree=3}]"], "agree = 3 of votes = 2 cannot be"),
        (["verifiers=[{type='needs_image',votes=1,agree=2}]"], "agree = 2 of votes = 1 cannot be"),
        (["student={start='layers'}"], "a student that reads text alone would learn to guess"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_at_once(settings: list[str], words: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe_plan("image-questions", ["teachers.main={model='fake/image_questions'}", *settings])
    assert words in str(refused.value)


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_photos_are_sent_stored_and_published_as_jpeg_without_metadata(tmp_path: Path, prefect_home: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for place in range(8):
        exif = Image.Exif()
        exif[0x010E] = "SECRET PLACE"
        noise = Image.effect_noise((140 + place, 200), 60).convert("RGB")
        noise.save(photos / f"{place}.jpg", quality=80, exif=exif)
    settings = (f"images.folder={photos}", "samples=24", "teachers.main={model='fake/image_questions'}")
    formats = "dataset.formats=['messages','sharegpt']"
    options = [part for one in (*settings, formats) for part in ("--set", one)]
    place: Any = {"PREFECT_HOME": str(prefect_home), "XDG_CACHE_HOME": str(tmp_path)}
    done = FORKS.run("stillhouse", "run", "image-questions", *options, "--runs-dir", str(tmp_path), **place)
    assert done.returncode == 0, done.stderr
    run = RunDir(next(tmp_path.glob("image-questions-*")))
    stored = list(run.images.rglob("*.*"))
    assert len(stored) == 8
    assert {file.suffix for file in stored} == {".jpeg"}
    assert all(b"SECRET" not in file.read_bytes() for file in stored)
    rows = [json.loads(line) for line in (run.dataset / "sharegpt" / "train.jsonl").read_text().splitlines()]
    for row in rows:
        assert row["conversations"][0]["value"].startswith("<image>\n")
        assert (run.dataset / "sharegpt" / row["images"][0]).read_bytes().startswith(JPEG_START)
    record = run.read_manifest().get("pictures", PicturesRecord)
    assert record is not None
    assert (record.sources, record.leaks) == (8, None)
    assert sum(record.operations.values()) == record.questions >= len(rows) > 8
    card = (run.dataset / "README.md").read_text()
    assert f"{record.questions} questions about 8 pictures" in card
    assert "Nothing is known here of their rights" in card
    page = (run.path / "report.html").read_text()
    assert "looks at the image found" in page
    assert f'<img src="{rows[0]["images"][0]}"' in page


# A verifier that sees


@pytest.fixture(scope="module")
def eyes(seeing_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny student that sees and learns to answer the verifier's question about a square in the verifier's form."""
    out = tmp_path_factory.mktemp("eyes") / "student"
    config = build_seeing_config(seeing_student).model_copy(update={"epochs": 5})
    rng = Random(3)
    rows = []
    for _ in range(360):
        color = rng.choice(COLORS)
        shown = Message(role="user", content=QUESTION, images=(draw_square(color, rng),))
        rows.append([shown, Message(role="assistant", content=json.dumps({"found": True, "answer": color}))])
    train_student(rows, config, out, seed=3, progress=quiet)
    return export_gguf(out, "f32").path


def test_a_prompt_counts_the_earlier_questions_about_its_image() -> None:
    """With one kind, each of them had the same request."""
    family, row = ImageQuestionsFamily(), {"images": ["0" * 64], "source": "a.png"}
    options = ImageQuestionsOptions(kinds={"counting": 1})
    first, second, third = (family.condition_again(row, options, Random(0), turn)["earlier"] for turn in range(3))
    assert not first
    assert "asked about once before" in second
    assert "1 of them had the same request, so leave out the most obvious one." in second
    assert "asked about 2 times before" in third
    assert "leave out the 2 most obvious ones." in third
