"""The documents of a release, built from records."""

from pathlib import Path

import pytest

from core.runs.releases import Release
from core.runs.run_dir import RunDir
from flows.data.dataset_card import build_license_fields, describe_teacher_terms
from flows.release.release_creation import create_release
from flows.release.release_documents import CARD, TRAINING_SUMMARY, write_release_documents
from tests.support.lineages import OFF, lineage, make_run

DOCUMENTS = (CARD, TRAINING_SUMMARY)
TERMS = ('dataset.license="cc-by-4.0"', 'dataset.publisher="Lab | <b>of</b> examples"')


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases; the second has a licence, and rows in two forms. Never changed by a test."""
    folder = tmp_path_factory.mktemp("documents") / "runs"
    create_release(make_run(folder, OFF))
    forms = 'dataset.formats=["messages","alpaca"]'
    create_release(make_run(folder, OFF, *TERMS, forms, 'filters=[{type="length"},{type="pii"}]'))
    return folder


@pytest.fixture(scope="module")
def second(runs: Path) -> Release:
    return lineage(runs).read_verified()[1]


def test_documents_are_built_from_records_alone_and_the_same_each_time(
    runs: Path, second: Release, tmp_path: Path
) -> None:
    manifest = second.manifest
    run = RunDir(runs / manifest.run.run)
    for name in manifest.files:
        if name not in DOCUMENTS:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((second.path / name).read_bytes())
    written = write_release_documents(
        tmp_path, run.read_recipe(), manifest.run, second.lineage, manifest.released, run.read_sources()
    )
    assert written == {name: manifest.files[name] for name in DOCUMENTS}
    for name in DOCUMENTS:
        assert str(runs) not in (second.path / name).read_text(), "no path of this machine"


def test_the_card_states_licence_teachers_checks_verdict_and_lineage_and_loads(second: Release) -> None:
    card = (second.path / CARD).read_text()
    assert card.startswith('---\npretty_name: "smoke"\nlicense: "cc-by-4.0"\n')
    parent = second.lineage.ancestors[0]
    for stated in (
        "`CC-BY-4.0`, stated by the publisher", "| `fake/writer` | generator, critic | a scripted program for tests, no model |",
        "**Verifier** `constraints`", f"Collapse verdict: **{second.manifest.verdict}**", f"| `smoke/0` | `{parent.digest}` |",
        "path: dataset/train.parquet", "path: dataset/alpaca/train.parquet", r"Lab \| \<b\>of\</b\> examples",
    ):  # fmt: skip
        assert stated in card


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (None, {}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("GPL-3.0-or-later", {"license": "gpl-3.0"}),
        ("ODC-By-1.0", {"license": "odc-by"}),
        ("MIT OR Apache-2.0", {"license": "other", "license_name": "mit or apache-2.0"}),
        (
            "https://example.org/l",
            {"license": "other", "license_name": "other", "license_link": "https://example.org/l"},
        ),
    ],
)
def test_a_licence_has_the_name_that_the_hub_knows(name: str | None, fields: dict[str, str]) -> None:
    assert build_license_fields(name) == fields


@pytest.mark.parametrize(
    ("model", "supplier", "url"),
    [
        ("anthropic/claude-sonnet-5", "Anthropic", "https://www.anthropic.com/legal/commercial-terms"),
        ("local/hf:Qwen/Qwen3-8B-GGUF:Q4_K_M", "Qwen", "https://huggingface.co/Qwen/Qwen3-8B-GGUF"),
        ("vllm/Qwen/Qwen3-8B", "Qwen", "https://huggingface.co/Qwen/Qwen3-8B"),
        ("local/student:smoke/3", "the publisher", None),
        ("local/some/file.gguf", "unknown", None),
    ],
)
def test_the_terms_of_a_teacher_are_found_by_its_name(model: str, supplier: str, url: str | None) -> None:
    terms = describe_teacher_terms(model)
    assert (terms.supplier, terms.url) == (supplier, url)
