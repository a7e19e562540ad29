"""The draft of a `local/…` or `vllm/…` teacher: its files, and whether its tokens are the teacher's. Starts no server."""

import json
import shlex
from collections.abc import Collection
from pathlib import Path

from core.config.teachers import MTP_DRAFT, TeacherConfig
from core.shared_options import name_student_file
from core.weights.gguf_files import find_gguf_problem, list_part_names
from core.weights.gguf_header import has_mtp_block, read_gguf_tokens
from teachers.local_weights import find_local_weights

EXPORTED_DRAFT = name_student_file()
"""In a student's folder: the export that llama.cpp drafts with."""


def find_draft_weights(path: Path) -> Path:
    """The GGUF file of a draft that is a file or a student's folder; it may be missing."""
    return path / EXPORTED_DRAFT if path.is_dir() else path


def find_draft_problem(config: TeacherConfig, weights: Path | None = None) -> str | None:
    """Why the teacher's draft cannot be used, or None. Nothing is downloaded.

    `weights` is the GGUF file of a `local/…` teacher; by default, the one that is found without a download, if any.
    """
    path = config.draft_path
    if config.draft == MTP_DRAFT:
        return _find_block_problem(weights or find_local_weights(config))
    if path is None:
        return None
    if not path.exists():
        where = "" if Path(str(config.draft)).is_absolute() else " in the recipe's folder or the working directory"
        return f"there is no file or folder {config.draft!r}{where}"
    if path.is_dir() and not (path / "config.json").is_file():
        return f"{config.draft!r} is no student's folder: it has no config.json"
    if config.model.startswith("vllm/"):
        return _find_folder_problem(path, Path(config.model.removeprefix("vllm/")))
    draft = find_draft_weights(path)
    if path.is_dir() and not draft.is_file():
        return f"{config.draft!r} is not exported as {EXPORTED_DRAFT}; run `stillhouse export {shlex.quote(str(path))}`"
    weights = weights or find_local_weights(config)
    return find_gguf_problem(draft) or (_find_token_problem(draft, weights) if weights else None)


def describe_large_draft(draft: Path, weights: Path) -> str | None:
    """A warning if the GGUF file of the draft is not smaller than the teacher's; else None."""
    own, teachers = (
        sum(file.with_name(part).stat().st_size for part in list_part_names(file.name)) for file in (draft, weights)
    )
    if own < teachers:
        return None
    return f"the draft {draft} has {own / 1e6:,.0f} MB and its teacher {teachers / 1e6:,.0f} MB, so it makes the teacher slower"


def _find_block_problem(weights: Path | None) -> str | None:
    try:
        if weights is None or has_mtp_block(weights):
            return None
    except (ValueError, OSError) as error:
        return f"{str(weights)!r}: {error}"
    return (
        f"{str(weights)!r} has no layer for multi-token prediction; train one with the step mtp, or use another draft"
    )


def _find_token_problem(draft: Path, weights: Path) -> str | None:
    try:
        own = read_gguf_tokens(draft)
    except (ValueError, OSError) as error:
        return f"{str(draft)!r}: {error}"
    try:
        teachers = read_gguf_tokens(weights)
    except (ValueError, OSError) as error:
        return f"its teacher's file {str(weights)!r}: {error}"
    if own == teachers:
        return None
    return _describe_other_tokens(str(draft), own, teachers)


def _describe_other_tokens(name: str, own: Collection[object], teachers: Collection[object]) -> str:
    if len(own) < len(teachers) and set(own) <= set(teachers):
        return (
            f"{name!r} has a trimmed vocabulary, {len(own):,} of the teacher's {len(teachers):,} tokens, and a draft needs all; "
            "train it without `vocabulary`"
        )
    sizes = (
        f"{len(own):,} tokens, the teacher {len(teachers):,}" if len(own) != len(teachers) else f"{len(own):,} others"
    )
    return f"{name!r} has another tokenizer than the teacher ({sizes}); a draft must have the teacher's own tokens"


def _find_folder_problem(draft: Path, teacher: Path) -> str | None:
    """A problem of vLLM's draft. Tokens are compared if the teacher is a folder too; else vLLM compares the sizes."""
    if not draft.is_dir():
        return f"{str(draft)!r} is no folder; vLLM drafts with a student's folder"
    files = [folder / "tokenizer.json" for folder in (draft, teacher)]
    if not all(file.is_file() for file in files):
        return None
    try:
        own, teachers = map(_read_tokenizer, files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"the tokenizers of {str(draft)!r} and its teacher cannot be compared: {type(error).__name__}: {error}"
    return None if own == teachers else _describe_other_tokens(str(draft), own.keys(), teachers.keys())


def _read_tokenizer(file: Path) -> dict[str, int]:
    """The ids of the tokens in a `tokenizer.json`."""
    whole = json.loads(file.read_text(encoding="utf-8"))
    return {**whole["model"]["vocab"], **{token["content"]: token["id"] for token in whole["added_tokens"]}}
