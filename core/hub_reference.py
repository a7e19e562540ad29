"""Names of GGUF files on the Hugging Face Hub, as in `local/hf:OWNER/REPO@REVISION:FILE`. Knows no network and no cache."""

import re
from typing import NamedTuple

HUB_PREFIX = "hf:"
_REFERENCE = re.compile(r"hf:(\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?)(?:@([^:@\s]+))?(?::([^:\s]+))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


class HubReference(NamedTuple):
    """A GGUF file of a repository. `str` gives its name in a recipe, without the provider."""

    repo: str
    """`owner/repo`."""
    revision: str | None
    """A branch, a tag or a commit; None for the main branch."""
    file: str | None
    """A file (`x.gguf`), a quantization (`Q4_K_M`), or None for the only GGUF file of the repository."""

    def __str__(self) -> str:
        revision, file = (mark + part if part else "" for mark, part in (("@", self.revision), (":", self.file)))
        return f"{HUB_PREFIX}{self.repo}{revision}{file}"

    @property
    def pinned(self) -> bool:
        """Whether it names one file of one commit, whose content cannot change."""
        return bool(self.revision and COMMIT.fullmatch(self.revision) and self.names_file)

    @property
    def names_file(self) -> bool:
        """Whether it names a file, not a quantization."""
        return bool(self.file and self.file.lower().endswith(".gguf"))


def parse_hub_reference(name: str) -> HubReference | None:
    """The reference `name`, or None if it is not one."""
    found = _REFERENCE.fullmatch(name)
    if (
        found is None
        or re.search(r"--|\.\.", found[1])
        or not all(is_safe_name(part or "x") for part in found.groups())
    ):
        return None
    return HubReference(*found.groups())


def is_safe_name(name: str) -> bool:
    """Whether `name`, of a file or a revision, can be part of a reference, and is no path out of its folder."""
    return name.isprintable() and not re.search(r"[:\s\\]", name) and not {"", ".", ".."} & set(name.split("/"))


def find_hub_reference(model: str) -> HubReference | None:
    """The reference of a teacher's `model` (`local/hf:…`), or None."""
    return parse_hub_reference(model.removeprefix("local/")) if model.startswith(f"local/{HUB_PREFIX}") else None


def remove_revision(model: str) -> str:
    """A teacher's `model` without the revision of its weights: their hash identifies them."""
    reference = find_hub_reference(model)
    return f"local/{reference._replace(revision=None)}" if reference else model
