"""The results of library calls: files on disk, and their rows as polars frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from core.runs.records import CollapseVerdict, RunEstimate, RunManifest, RunState
from core.runs.releases import ReleaseManifest
from core.runs.run_dir import RunDir
from core.runs.student_records import StudentRecord
from core.runs.verdict_words import CollapseAssessment
from core.sample import Sample
from core.shared_options import DEFAULT_GGUF_TYPE

if TYPE_CHECKING:
    import polars as pl

    from flows.report.filter_report import FilterReport

__all__ = ["Assessment", "DatasetFolder", "Filtered", "LoadedRelease", "Preview", "Run", "Student"]


@dataclass(frozen=True)
class DatasetFolder:
    """A dataset as it is on disk: `messages` rows to train on, and held-out ones."""

    path: Path

    @property
    def train(self) -> "pl.DataFrame":
        return self._read_split("train")

    @property
    def validation(self) -> "pl.DataFrame":
        """Without rows in a release of a filtered folder, which holds none out."""
        return self._read_split("validation")

    def _read_split(self, name: str) -> "pl.DataFrame":
        import polars as pl

        from flows.rows.dataset_rows import read_all_rows

        files = sorted(self.path.glob(f"{name}.*"))
        if not files and name == "validation" and list(self.path.glob("train.*")):
            return self.train.clear()
        if files and files[0].suffix != ".parquet":
            return pl.DataFrame(list(read_all_rows(files[0], dict)), infer_schema_length=None)
        return pl.read_parquet(self.path / f"{name}.parquet")


class _ShownAsText:
    """A result that a notebook shows as the command prints it."""

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


class Preview(_ShownAsText, list[Sample]):
    """A few samples of a recipe, each with every agent's turn."""

    def __repr__(self) -> str:
        return "\n".join([*map(repr, self), repr(self.estimate)])

    def __init__(self, samples: Sequence[Sample], estimate: RunEstimate) -> None:
        super().__init__(samples)
        self.estimate = estimate
        """What a whole run takes, with 95 % ranges."""


@dataclass(frozen=True, repr=False)
class Run(_ShownAsText):
    """A run: its directory and everything in it. Shows its card, as the command prints it."""

    path: Path
    runs_dir: str

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def manifest(self) -> RunManifest:
        """Counts, reasons, verdict on collapse, usage, the student's losses and all else that the run recorded."""
        return self._folder.read_manifest()

    @property
    def state(self) -> RunState:
        """`done`; or `partial`, if it ended with less than the recipe asks for (`manifest.shortfalls` has the reasons)."""
        return self.manifest.state

    @property
    def dataset(self) -> DatasetFolder:
        return DatasetFolder(self._folder.dataset)

    @property
    def student(self) -> Path | None:
        """The student's folder; None if the run trained none."""
        return self._folder.student if (self._folder.student / "config.json").is_file() else None

    @property
    def report_page(self) -> Path:
        return self._folder.report_file

    def samples(self) -> "pl.DataFrame":
        """Kept, dropped and failed samples: id, state, reason, detail, revisions, question and answer."""
        import polars as pl

        from flows.data.curated_run import read_finished_samples

        rows = [_summarize_sample(sample) for sample in read_finished_samples(self._folder)]
        return pl.DataFrame(rows, schema=dict.fromkeys(SAMPLE_COLUMNS, pl.String) | {"revisions": pl.Int64})

    def sample(self, name: str) -> Sample:
        """One sample with its whole history, by its id or the number at the end of its id. Raises UsageError if there is none."""
        from flows.data.curated_run import find_sample

        return find_sample(self._folder, name)

    @property
    def _folder(self) -> RunDir:
        return RunDir(self.path)

    def __repr__(self) -> str:
        from flows.terminal.run_summary import format_run_card

        return format_run_card(self.manifest, self._folder, self.name, self.runs_dir)


SAMPLE_COLUMNS = ("id", "state", "reason", "detail", "revisions", "question", "answer")


def _summarize_sample(sample: Sample) -> dict[str, str | int | None]:
    messages = sample.candidate.messages if sample.candidate else ()
    return {
        "id": sample.id,
        "state": str(sample.state),
        "reason": sample.reason and str(sample.reason),
        "detail": sample.detail,
        "revisions": sample.revisions,
        "question": next((message.content for message in messages if message.role == "user"), None),
        "answer": sample.candidate.answer if sample.candidate else None,
    }


@dataclass(frozen=True, repr=False)
class Filtered(_ShownAsText):
    """A filtered dataset. Shows its counts, as the command prints them."""

    report: "FilterReport"
    """Counts, the filters with what each dropped, reasons, similarities and examples."""
    kept: "pl.DataFrame"
    """The kept rows, as they were."""
    dropped: "pl.DataFrame"
    """The dropped rows: reason, detail, filter, score, and the row that they repeat."""
    path: Path | None
    """The folder with both and the report page; None if no folder was named."""

    def __repr__(self) -> str:
        from flows.report.filter_report import format_filter_card

        return format_filter_card(self.report, whole=False)


@dataclass(frozen=True, repr=False)
class Assessment(_ShownAsText):
    """A dataset compared with real text, or assessed for repetition only. Shows its verdict and what it means."""

    record: CollapseAssessment

    @property
    def verdict(self) -> CollapseVerdict:
        """`collapse`, `shift`, `inconclusive` or `pass`; without a reference `collapse`, `inconclusive` or `no repetition`."""
        return self.record.verdict

    @property
    def headline(self) -> str:
        """The verdict, what was compared and the main finding, in a line."""
        return self.record.worse.headline

    @property
    def paragraph(self) -> str:
        """What the verdict means."""
        return self.record.worse.paragraph

    @property
    def advice(self) -> Sequence[str]:
        return [advice.text for advice in self.record.advice]

    @property
    def metrics(self) -> "pl.DataFrame":
        """Each metric: of the dataset (`candidate`), of real text (`reference`), and the range of real text. Without a reference:
        of the dataset, of its words in random order, and the limits.
        """
        import polars as pl

        return pl.DataFrame([metric.model_dump(mode="json") for metric in self.record.collapse.metrics])

    def __repr__(self) -> str:
        from flows.terminal.text_format import replace_unsafe_characters

        return replace_unsafe_characters(
            "\n".join([self.headline, self.paragraph, *(f"- {one}" for one in self.advice)])
        )


@dataclass(frozen=True)
class Student:
    """A trained student."""

    path: Path
    """Its folder: weights, tokenizer, model card. `transformers` and `stillhouse serve` load it."""
    record: StudentRecord
    """Losses before and after, and how it was trained."""

    def export(self, kind: str = DEFAULT_GGUF_TYPE) -> Path:
        """Its GGUF file, for llama.cpp and similar runtimes. `kind`: a `--type` of `stillhouse export`."""
        from flows.data.student_files import export_student

        return export_student(self.path, kind).path


@dataclass(frozen=True)
class LoadedRelease:
    """A release whose files were compared with their hashes."""

    path: Path
    manifest: ReleaseManifest

    @property
    def name(self) -> str:
        """`recipe/generation`."""
        return self.manifest.release

    @property
    def dataset(self) -> DatasetFolder:
        return DatasetFolder(self.path / "dataset")
