"""The documents of a release, built from records and read by the validators of their forms."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.runs.releases import Release
from core.runs.run_dir import RunDir
from flows.data.dataset_card import build_license_fields
from flows.data.teacher_terms import describe_teacher_terms
from flows.release.release_creation import create_release
from flows.release.release_documents import CARD, CROISSANT, SBOM, TRAINING_SUMMARY, write_release_documents
from tests.support.lineages import OFF, lineage, make_run

DOCUMENTS = (CARD, CROISSANT, SBOM, TRAINING_SUMMARY)
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


def read(release: Release, name: str) -> Any:
    return json.loads((release.path / name).read_text())


def find(sbom: Any, kind: str) -> list[Any]:
    return [element for element in sbom["@graph"] if element["type"] == kind]


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
        tmp_path, run.read_recipe(), manifest.run, second.lineage, manifest.released,
        {one.name: one.manifest.run.digest for one in lineage(runs).read_all()}, run.read_sources(),
        {name: digest for name, digest in manifest.files.items() if name not in DOCUMENTS},
    )  # fmt: skip
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


def test_croissant_lists_each_file_with_its_hash_each_column_and_the_provenance(runs: Path, second: Release) -> None:
    first = lineage(runs).read_all()[0]
    croissant, before = read(second, CROISSANT), read(first, CROISSANT)
    assert croissant["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert croissant["license"] == "https://spdx.org/licenses/CC-BY-4.0.html"
    listed = {file["@id"]: file["sha256"] for file in croissant["distribution"]}
    assert listed == {
        name: digest
        for name, digest in second.manifest.files.items()
        if name.startswith("dataset/") and not name.endswith(".md")
    }
    sets = {one["@id"]: [field["name"] for field in one["field"]] for one in croissant["recordSet"]}
    train = pl.read_parquet(second.dataset / "train.parquet")
    assert sets["messages-train"] == train.columns
    assert sets["alpaca-train"] == ["id", "instruction", "input", "output"]
    activity = croissant["prov:wasGeneratedBy"]
    assert activity["prov:label"].startswith(f"run {second.manifest.run.run} ")
    assert "fake/writer" in [used["prov:label"] for used in activity["prov:used"]]
    assert "seeds: topics.jsonl" in [used["prov:label"] for used in activity["prov:used"]]
    assert [one["@id"] for one in croissant["prov:wasDerivedFrom"]] == [before["@id"]]
    assert croissant["prov:wasRevisionOf"] == {"@id": before["@id"]}
    assert before["prov:wasDerivedFrom"] == []


def test_the_bill_of_materials_has_every_file_model_and_licence(second: Release) -> None:
    sbom = read(second, SBOM)
    hashes = {file["name"]: file["verifiedUsing"][0]["hashValue"] for file in find(sbom, "software_File")}
    assert hashes == {name: digest for name, digest in second.manifest.files.items() if name != SBOM}
    [dataset] = find(sbom, "dataset_DatasetPackage")
    assert dataset["dataset_datasetSize"] == sum(
        p.stat().st_size for p in second.dataset.rglob("*.*") if p.suffix != ".md"
    )
    assert dataset["dataset_anonymizationMethodUsed"]
    assert [model["name"] for model in find(sbom, "ai_AIPackage")] == ["fake/writer"]
    names = {element["spdxId"] for element in sbom["@graph"] if "spdxId" in element}
    kinds = {(one["relationshipType"], one["from"]): one["to"] for one in find(sbom, "Relationship")}
    [stated] = kinds["hasDeclaredLicense", dataset["spdxId"]]
    expressions = {
        one["spdxId"]: one["simplelicensing_licenseExpression"]
        for one in find(sbom, "simplelicensing_LicenseExpression")
    }
    assert expressions[stated] == "CC-BY-4.0"
    [document] = find(sbom, "SpdxDocument")
    imported = {one["externalSpdxId"] for one in document["import"]}
    assert set(kinds["descendantOf", dataset["spdxId"]]) == imported
    assert len(imported) == 1
    for targets in kinds.values():
        assert all(target in names | imported or target.startswith("https://spdx.org/") for target in targets)


def test_the_summary_has_the_sections_of_the_template_and_says_what_is_missing(second: Release) -> None:
    summary = (second.path / TRAINING_SUMMARY).read_text()
    sections = [line.split(" ")[1] for line in summary.splitlines() if line.startswith(("## ", "### "))]
    assert sections == "1. 1.1 1.2 1.3 2. 2.1 2.2 2.3 2.4 2.5 2.6 3. 3.1 3.2 3.3".split()
    assert "of the earlier release `smoke/0`" in summary
    assert "| `fake/writer` | generator, critic | Stillhouse |" in summary
    assert "Personal data that patterns find was masked or removed." in summary
    assert summary.count("**to be completed**") >= 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib", "ignore::DeprecationWarning:mlcroissant")
def test_the_reference_implementation_of_croissant_accepts_the_document_and_reads_the_rows(second: Release) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(str(second.path / CROISSANT))
    assert not dataset.metadata.issues.errors
    for form in second.manifest.run.formats:
        rows = list(dataset.records(f"{form.name}-train"))
        assert len(rows) == form.train
    first = next(iter(dataset.records("messages-train")))
    stored = pl.read_parquet(second.dataset / "train.parquet").row(0, named=True)
    assert first["messages-train/id"].decode() == stored["id"]
    turns = [turn["messages-train/messages/content"].decode() for turn in first["messages-train/messages"]]
    assert turns == [turn["content"] for turn in stored["messages"]]


@pytest.mark.slow
def test_the_official_model_of_spdx_accepts_the_bill_of_materials(second: Release) -> None:
    spdx = pytest.importorskip("spdx_python_model")
    model, objects = spdx.load(second.path / SBOM)
    assert model.__name__.endswith("v3_0_1")
    imported = [one.externalSpdxId for one in next(objects.foreach_type("SpdxDocument")).import_]
    assert objects.missing_ids <= {*imported}
    model.JSONLDSerializer().serialize_data(objects)  # checks the number of values of each property


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
