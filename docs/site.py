"""Hooks of mkdocs: the pages lie where they lie in the repository, and docs/README.md is the contents."""

import re
import subprocess
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SHOWN = ("README.md", "CONTRIBUTING.md", "data", "docs", "plugins", "benchmarks", "requirements", "tests")
SUFFIXES = (".md", ".svg", ".png", ".ipynb")
LINK = re.compile(r"\[([^]]+)\]\(([^)#\s]+\.md)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Reads the navigation from docs/README.md: a section per heading, a page per link of its list."""
    contents = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    navigation: list[Any] = [{"Stillhouse": "README.md"}, {"Contents": "docs/README.md"}]
    for section in contents.split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        pages = {
            (ROOT / "docs" / target).resolve().relative_to(ROOT).as_posix(): title
            for title, target in LINK.findall(body)
        }
        navigation.append({heading: [{title: path} for path, title in pages.items()]})
    config.nav = navigation
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Takes the tracked pages and pictures of the whole repository, so that links between them hold."""
    listed = subprocess.run(["git", "ls-files", *SHOWN], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = [
        path for path in listed.stdout.splitlines() if Path(path).suffix in SUFFIXES and Path(path).name != "SKILL.md"
    ]
    return Files([File.generated(config, path, abs_src_path=str(ROOT / path)) for path in wanted])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Shows a link to a file of the repository that is no page, such as a test, as its path."""
    folder = (ROOT / page.file.src_uri).parent

    def show(link: re.Match[str]) -> str:
        target = link[2].partition("#")[0]
        path = (folder / target).resolve()
        page_or_picture = path.suffix in SUFFIXES and files.get_file_from_path(path.relative_to(ROOT).as_posix())
        return link[0] if page_or_picture or not path.exists() else f"`{path.relative_to(ROOT)}`"

    return re.sub(r"(?<!!)\[([^]]+)\]\((?!\w+:|#)([^)\s]+)\)", show, markdown)
