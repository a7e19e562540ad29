"""What authors of plugins import, by `from stillhouse import NAME`: types, `register`, errors. See docs/plugins.md."""

from typing import Any, TypeVar

from agents.checks import Check, Finding, Options, Subject, build_finding, check
from agents.checks.registry import CHECK_EXTENSIONS
from agents.families import FAMILY_EXTENSIONS
from agents.families.base import RecipeFamily, require_text
from agents.reply_schema import InvalidReply, ReplySchema
from agents.sources.seed_source import SOURCE_EXTENSIONS, SeedSource
from core.config.base import RecipeTable
from core.config.filters import FILTER_EXTENSIONS
from core.config.losses import LOSS_EXTENSIONS, Loss, LossOptions, loss
from core.config.student_steps import STEP_EXTENSIONS, StudentStep
from core.config.teachers import TeacherConfig
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
from core.extensions import ExtensionPoint
from core.hooks import RunHooks
from core.plugins import Part, Plugin
from core.sample import Candidate, Message, RejectionReason, Sample, Seed, TokenUsage
from core.secrets import read_key
from filters.base import Document, DroppedDocument, Filter, MaskedDocument, PairFilter
from filters.masks import TextMask
from filters.ragged_arrays import DuplicateMatches, RaggedArray
from teachers.base import CallFailed, ChargeAccount, Teacher, TeacherQuestion, TeacherReply
from teachers.protocols import LimitedTeacher, TeacherProtocol
from teachers.providers import PROTOCOL_EXTENSIONS

__all__ = [
    "CallFailed", "Candidate", "ChargeAccount", "Check", "Document", "DroppedDocument", "DuplicateMatches", "Filter",
    "Finding", "GateNotMet", "InvalidReply", "LimitedTeacher", "Loss", "LossOptions", "MaskedDocument", "Message",
    "Options", "PairFilter", "Part", "Plugin", "ProviderError", "RaggedArray", "RecipeError", "RecipeFamily",
    "RecipeTable", "RejectionReason", "ReplySchema", "RunExists", "RunFailed", "RunHooks", "Sample", "Seed",
    "SeedSource", "StillhouseError", "StoreError", "StudentStep", "Subject", "Teacher", "TeacherConfig",
    "TeacherProtocol", "TeacherQuestion", "TeacherReply", "TextMask", "TokenUsage", "UsageError", "build_finding",
    "check", "loss", "read_key", "register", "require_text",
]  # fmt: skip

T = TypeVar("T")


def register(extension: T) -> T:
    """Make a check, filter, source of seeds, family, loss, step or teacher protocol known to this process, under its name.

    Other processes do not know it: work on a cluster or in several processes needs an installed package. Also a decorator.

    Raises:
        UsageError: if it is none of these, or its name is built-in or that of a plugin.
    """
    points: list[tuple[type[Any], ExtensionPoint[Any]]] = [
        (Check, CHECK_EXTENSIONS),
        (Loss, LOSS_EXTENSIONS),
        (TeacherProtocol, PROTOCOL_EXTENSIONS),
    ]
    classes: list[tuple[type[Any], ExtensionPoint[Any]]] = [
        (Filter, FILTER_EXTENSIONS),
        (PairFilter, FILTER_EXTENSIONS),
        (RecipeFamily, FAMILY_EXTENSIONS),
        (SeedSource, SOURCE_EXTENSIONS),
        (StudentStep, STEP_EXTENSIONS),
    ]
    for base, point in classes if isinstance(extension, type) else points:
        if issubclass(extension, base) if isinstance(extension, type) else isinstance(extension, base):
            point.register(extension)
            return extension
    derived = "Filter, PairFilter, SeedSource, RecipeFamily or StudentStep"
    kinds = f"a Check, a Loss, a TeacherProtocol, or a class derived from {derived}"
    raise UsageError(f"register: {extension!r} is no extension; it must be {kinds}")
