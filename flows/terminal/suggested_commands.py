"""The commands that messages suggest, with the options of the command that prints them, after a preview too. Runs nothing.

A line `next: …` is a command that works when pasted in the same folder. A command with placeholders, in capitals, is in a line
`hint: …`.
"""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from core.errors import RunFailed
from core.runs.records import RunInvocation, RunManifest, RunState
from core.runs.run_dir import RUNS_FOLDER, RunDir
from core.sample import Sample, SampleStatus
from core.secrets import redact_text
from flows.data.curated_run import FailureCounter, format_drop_reason
from flows.terminal.text_format import format_count


def format_command(*words: str) -> str:
    """`stillhouse` with these arguments, quoted for a shell, secrets redacted."""
    return redact_text(shlex.join(["stillhouse", *words]))


def format_next_line(*words: str) -> str:
    return f"next: {format_command(*words)}"


def build_runs_dir_arguments(runs_dir: str) -> list[str]:
    """`--runs-dir`, unless `runs_dir` is the default."""
    return [] if runs_dir == RUNS_FOLDER else ["--runs-dir", runs_dir]


def build_recipe_arguments(recipe: str, overrides: Sequence[str] | None) -> list[str]:
    """The arguments for a recipe with its overrides."""
    return [recipe, *(word for override in overrides or () for word in ("--set", override))]


def build_invocation(recipe: str, overrides: Sequence[str], *, distill: bool, release: bool = False) -> RunInvocation:
    """The record of how a run was started, so that a command printed in any folder finds its recipe."""
    from flows.recipes.recipe_catalog import list_built_in_recipes, resolve_recipe_name

    return RunInvocation(
        verb="run" if distill else "generate",
        recipe=recipe,
        file=None if recipe in list_built_in_recipes() else resolve_recipe_name(recipe),
        folder=str(Path.cwd()),
        overrides=tuple(overrides),
        release=release,
    )


def build_resume_command(invocation: RunInvocation, runs_dir: str, *, release: bool = True) -> str:
    """The command that resumes the run, valid in the current folder; with `release`, it also releases the run if the recorded
    command did.
    """
    words = [invocation.verb, *_build_invocation_arguments(invocation), *build_runs_dir_arguments(runs_dir)]
    return format_command(*words, *(["--release"] if release and invocation.release else []), "--resume")


def _build_invocation_arguments(invocation: RunInvocation) -> list[str]:
    """The recipe and the overrides of an invocation, valid in the current folder."""
    here = invocation.file is None or invocation.folder == str(Path.cwd())
    return build_recipe_arguments(invocation.recipe if here else str(invocation.file), invocation.overrides)


def format_resume_hint(run: RunDir, manifest: RunManifest) -> str:
    """How to resume a run before something else is done with it, as a clause without full stop."""
    if manifest.invocation is None:
        return "resume it with --resume"
    return f"resume it with `{build_resume_command(manifest.invocation, find_runs_dir(run), release=False)}`"


def find_runs_dir(run: RunDir) -> str:
    """The value of `--runs-dir` for this run."""
    folder = run.path.parent
    return RUNS_FOLDER if folder.resolve() == Path(RUNS_FOLDER).resolve() else str(folder)


def suggest_next_command(
    manifest: RunManifest, run: RunDir, named: str | None = None, runs_dir: str | None = None
) -> str:
    """The line after a run's card: report while it runs, resume if that can add samples, preview if a check broke, else show.

    `named` and `runs_dir` are arguments of the command that prints the line. By default, the run's name or path.
    """
    if named is None:
        place = find_runs_dir(run)
        named, runs_dir = manifest.run if place == RUNS_FOLDER else str(run.path), RUNS_FOLDER
    else:
        runs_dir = runs_dir or RUNS_FOLDER
        place = find_runs_dir(run) if Path(named) == run.path else runs_dir
    if manifest.state not in (RunState.done, RunState.running) and manifest.remedy == "resume" and manifest.invocation:
        return f"next: {build_resume_command(manifest.invocation, place)}"
    if manifest.remedy == "preview" and manifest.invocation:
        return format_next_line("preview", *_build_invocation_arguments(manifest.invocation))
    if manifest.state is RunState.running:
        return format_next_line("report", named, *build_runs_dir_arguments(runs_dir))
    verb = "show" if manifest.counts.candidates or run.shards() else "report"
    return format_next_line(verb, named, *build_runs_dir_arguments(runs_dir))


def build_unjudged_error(samples: Sequence[Sample], words: Sequence[str], number: int) -> RunFailed:
    """The error of a preview of `number` samples that all failed; `words` are the recipe's arguments."""
    faults = FailureCounter()
    for sample in samples:
        faults.add(sample)
    fault = faults.most_common()
    again = format_next_line("preview", *words, "-n", str(number))
    return RunFailed(
        f"{words[0]}: none of {format_count(len(samples), 'sample')} could be judged; most often {fault.text}",
        hint=again if fault.check_broke else format_next_line("validate", *words, "--live"),
    )


def suggest_after_preview(samples: Sequence[Sample], words: Sequence[str], number: int, most: int) -> list[str]:
    """The next command; if none of the samples is kept, a larger preview of at most `most` samples, and why."""
    dropped = [sample for sample in samples if sample.state is not SampleStatus.kept]
    if len(dropped) < len(samples):
        return [format_next_line("run", *words)]
    counts = Counter(format_drop_reason(sample.reason or "", sample.detail) for sample in dropped)
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    return [
        f"hint: none of {format_count(len(samples), 'sample')} is kept ({reasons}); a run may keep none: preview more",
        format_next_line("preview", *words, "-n", str(min(most, 3 * number))),
    ]
