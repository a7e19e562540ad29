"""Stillhouse as a library: the commands as functions, for notebooks and programs.

    import stillhouse

    run = stillhouse.run("smoke")
    run.dataset.train          # a polars frame
    clean = stillhouse.filter("rows.jsonl", filters=["exact", "minhash"])

Importing it is cheap: every function imports what it needs when it is called.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.errors import (
        GateNotMet,
        ProviderError,
        RecipeError,
        RunExists,
        RunFailed,
        StillhouseError,
        StoreError,
        UsageError,
    )
    from core.plugins import Part, Plugin
    from core.sample import Sample
    from stillhouse.extensions import (
        CallFailed,
        Candidate,
        ChargeAccount,
        Check,
        Document,
        DroppedDocument,
        DuplicateMatches,
        Filter,
        Finding,
        InvalidReply,
        LimitedTeacher,
        Loss,
        LossOptions,
        MaskedDocument,
        Message,
        Options,
        PairFilter,
        RaggedArray,
        RecipeFamily,
        RecipeTable,
        RejectionReason,
        ReplySchema,
        RunHooks,
        Seed,
        SeedSource,
        StudentStep,
        Subject,
        Teacher,
        TeacherConfig,
        TeacherProtocol,
        TeacherQuestion,
        TeacherReply,
        TextMask,
        TokenUsage,
        build_finding,
        check,
        loss,
        read_key,
        register,
        require_text,
    )
    from stillhouse.functions import (
        assess,
        distill,
        evaluate,
        filter,
        generate,
        load_release,
        preview,
        run,
    )
    from stillhouse.results import (
        Assessment,
        DatasetFolder,
        Filtered,
        LoadedRelease,
        Preview,
        Run,
        Student,
    )
    from stillhouse.session import Progress

__all__ = [
    "Assessment",
    "CallFailed",
    "Candidate",
    "ChargeAccount",
    "Check",
    "DatasetFolder",
    "Document",
    "DroppedDocument",
    "DuplicateMatches",
    "Filter",
    "Filtered",
    "Finding",
    "GateNotMet",
    "InvalidReply",
    "LimitedTeacher",
    "LoadedRelease",
    "Loss",
    "LossOptions",
    "MaskedDocument",
    "Message",
    "Options",
    "PairFilter",
    "Part",
    "Plugin",
    "Preview",
    "Progress",
    "ProviderError",
    "RaggedArray",
    "RecipeError",
    "RecipeFamily",
    "RecipeTable",
    "RejectionReason",
    "ReplySchema",
    "Run",
    "RunExists",
    "RunFailed",
    "RunHooks",
    "Sample",
    "Seed",
    "SeedSource",
    "StillhouseError",
    "StoreError",
    "Student",
    "StudentStep",
    "Subject",
    "Teacher",
    "TeacherConfig",
    "TeacherProtocol",
    "TeacherQuestion",
    "TeacherReply",
    "TextMask",
    "TokenUsage",
    "UsageError",
    "assess",
    "build_finding",
    "check",
    "distill",
    "evaluate",
    "filter",
    "generate",
    "load_release",
    "loss",
    "preview",
    "read_key",
    "register",
    "require_text",
    "run",
]

_MODULES = ("functions", "results", "session", "extensions")


def __getattr__(name: str) -> Any:
    """Import a public name, or a function of a plugin, when it is first used."""
    from core import plugins

    if name not in __all__:
        if name.startswith("_") or not (found := plugins.find_part("function", name)):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return plugins.import_part(*found)
    if name in ("Part", "Plugin"):  # of declarations, which every command imports
        return getattr(plugins, name)
    for module in _MODULES:
        found = vars(import_module(f"{__name__}.{module}")).get(name)
        if found is not None:
            return found
    from core import errors

    return getattr(errors, name)


def __dir__() -> list[str]:
    from core.plugins import list_offered_names

    return [*__all__, *list_offered_names("function")]
