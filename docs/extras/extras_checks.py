from stillhouse import Options, Subject, check


class CalmOptions(Options):
    most: int = 0
    """Exclamation marks that are allowed."""


@check("calm", CalmOptions)
def calm(subject: Subject, options: CalmOptions) -> str | None:
    """The answer must have few exclamation marks."""
    number = subject.candidate.answer.count("!")
    return f"has {number} exclamation marks, over {options.most}" if number > options.most else None
