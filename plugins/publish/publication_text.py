"""The output of `publish` and `pull` in the terminal. Sends nothing."""

from collections.abc import Sequence
from typing import Any

from core.storage.hub_files import format_size
from flows.terminal.suggested_commands import format_next_line
from flows.terminal.text_format import format_count, format_one_line
from plugins.publish.hub_connection import find_endpoint
from plugins.publish.hub_publication import SentRepo, locate_publication_record
from plugins.publish.hub_pull import PulledRelease
from plugins.publish.publication_plan import PlannedRepo, PublicationPlan, describe_plan
from plugins.publish.secret_search import FoundContent


def format_plan(plan: PublicationPlan, allowed: Sequence[FoundContent]) -> str:
    """The output of `publish --dry-run`."""
    lines = [f"release {plan.release.name}  digest {plan.release.manifest.digest[:16]}  {plan.release.path}"]
    lines += [
        f"  license   {plan.release.manifest.run.dataset.license or 'not stated: set dataset.license in the recipe'}"
    ]
    for repo in plan.repos:
        visibility = "public" if plan.public else "private"
        lines.append(f"  {repo.kind:<9} {_format_address(repo)}  {visibility}, {_describe_files(repo)}")
        lines += [f"    {file.sha256}  {format_size(file.size):>9}  {file.path}" for file in repo.files]
    return "\n".join([*lines, *_list_allowed(allowed), "  nothing was sent: leave out --dry-run"])


def _format_address(repo: PlannedRepo) -> str:
    return f"{find_endpoint()}/{'datasets/' if repo.kind == 'dataset' else ''}{repo.repo}"


def _describe_files(repo: PlannedRepo) -> str:
    return f"{format_count(len(repo.files), 'file')}, {format_size(repo.size)}"


def _list_allowed(allowed: Sequence[FoundContent]) -> list[str]:
    return [f"  allowed   {format_one_line(str(content), 160)}" for content in allowed]


def format_sent(plan: PublicationPlan, sent: Sequence[SentRepo], allowed: Sequence[FoundContent]) -> str:
    """The output of `publish`."""
    lines = [f"release {plan.release.name}  published  {plan.release.path}"]
    for repo, done in zip(plan.repos, sent, strict=True):
        visibility = "private" if done.record.private else "public"
        size = format_size(sum(file.size for file in done.sent))
        removed = f", {len(done.removed)} of an earlier release removed" if done.removed else ""
        lines.append(f"  {repo.kind:<9} {_format_address(repo)}  {visibility}")
        lines.append(f"  revision  {done.record.revision}")
        lines.append(
            f"  sent      {format_count(len(done.sent), 'file')}, {size}; {done.present:,} were there{removed}"
        )
    lines.append(f"  record    {locate_publication_record(plan.release)}")
    first = sent[0].record
    name = f"{plan.release.lineage.recipe}-{plan.release.generation}"
    hint = format_next_line("pull", f"hf:{first.repo}@{first.revision}", "--out", name)
    return "\n".join([*lines, *_list_allowed(allowed), hint])


def build_publication_record(
    plan: PublicationPlan, sent: Sequence[SentRepo] | None, allowed: Sequence[FoundContent]
) -> dict[str, Any]:
    """The JSON form; `sent` is None for a dry run."""
    repos = [dict(repo) for repo in describe_plan(plan)]
    if sent is not None:
        for repo, done in zip(repos, sent, strict=True):
            repo |= {
                "private": done.record.private,
                "revision": done.record.revision,
                "sent": [file.path for file in done.sent],
                "present": done.present,
                "removed": list(done.removed),
            }
    return {
        "release": plan.release.name,
        "digest": plan.release.manifest.digest,
        "license": plan.release.manifest.run.dataset.license,
        "endpoint": find_endpoint(),
        "dry_run": sent is None,
        "repos": repos,
        "allowed": [str(content) for content in allowed],
    }


def format_pulled(pulled: PulledRelease) -> str:
    signed = f"  statement {pulled.statement}: not verified; `stillhouse rebuild {pulled.path} --verify KEY` does"
    return "\n".join([
        f"release {format_one_line(pulled.release)}  {pulled.path}",
        f"  from      {pulled.reference}",
        f"  verified  {format_count(pulled.files, 'file')}, {format_size(pulled.size)}, digest {pulled.digest[:16]}",
        *([signed] if pulled.statement else []),
        format_next_line("assess", str(pulled.path)),
    ])  # fmt: skip
