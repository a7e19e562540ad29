"""`stillhouse.reference`, as a library calls it."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from core.shared_options import DataKind
from plugins.references.preparation import (
    ReferenceOptions,
    ReferenceReport,
    check_reference_file,
    prepare_reference,
)
from stillhouse.functions import Columns, Dataset, Name, ProgressCallback, place_dataset, run_call

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class PreparedReference:
    """Real text in a file that `assess` compares with."""

    path: Path
    report: ReferenceReport
    """How it was made, what was left out and why, and its power: `loss` is the smallest loss of rare words that is found."""

    @property
    def texts(self) -> "pl.DataFrame":
        """The documents, each with the text that it is a passage of (`origin`)."""
        import polars as pl

        return pl.read_parquet(self.path)


def reference(
    sources: Dataset | Sequence[Dataset], out: Name, *, source: str = "", kind: DataKind | None = None,
    role: Literal["assistant", "user"] = "assistant", split: int | None = None, documents: int = 30_000, seed: int = 7,
    replace: bool = False, columns: Columns | None = None, progress: ProgressCallback | None = None,
) -> PreparedReference:  # fmt: skip
    """Make a reference for `assess` from real text: split, without repeats, shuffled, with the power that it gives.

    Args:
        sources: Datasets, documents, Python files, or folders of them.
        out: The Parquet file to write.
        source: Where the text is from, and its licence.
        kind: What it is; without it, it is found from the texts. `dialogue` keeps whole conversations, whose turns are compared.
        role: Whose turns of a conversation are taken, except for dialogues.
        split: The longest passage in words; 0 splits nothing; without it, files are split to 80 words, and rows of over 400.
        documents: The most documents.
        seed: Random seed of the draw and the order.
        replace: Replace the file if it exists.
        columns: Which columns of the sources hold what, as of `filter`.
        progress: Called with every message, from another thread.

    Raises:
        UsageError: if a source cannot be read or has too little text, or `out` exists and `replace` is not set.
    """

    def work() -> PreparedReference:
        check_reference_file(Path(out), replace=replace)
        listed = sources if isinstance(sources, list | tuple) else [cast("Dataset", sources)]
        with ExitStack() as stack:
            files = [place_dataset(one, stack, columns) for one in listed]
            options = ReferenceOptions(kind, role, split, documents, source, seed)
            return PreparedReference(Path(out), prepare_reference(files, Path(out), options, cache=None))

    return run_call(work, progress)
