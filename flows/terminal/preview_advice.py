"""What to do after a preview: run, preview more, or find out why no sample could be judged."""

from collections import Counter
from collections.abc import Sequence

from core.errors import RunFailed
from core.sample import Sample, SampleStatus
from flows.data.curated_run import FailureCounter, format_drop_reason
from flows.terminal.suggested_commands import format_next_line
from flows.terminal.text_format import format_count


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
