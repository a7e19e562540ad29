"""`sbom.spdx.json`: the bill of materials of a release in the form SPDX 3.0.1 (https://spdx.github.io/spdx-spec/v3.0.1/) as
JSON-LD: the dataset with every file, the models that wrote it, the student trained on it, and the software of the run.

It uses the classes of the Dataset and AI profiles, and claims conformance with the Core, Software and Licensing profiles only:
the others demand a download location and each model's release time, which a release does not know.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from flows.release.release_facts import ReleasedFile, ReleaseFacts, format_utc

CONTEXT_URL = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
CREATION = "_:creation"
NO_LICENSE_ASSERTION = "https://spdx.org/rdf/3.0.1/terms/ExpandedLicensing/NoAssertionLicense"
PROFILES = ("core", "software", "simpleLicensing")

Element = dict[str, Any]


class _Sbom:
    """The elements of one document, with names that only this release has."""

    def __init__(self, facts: ReleaseFacts) -> None:
        self.facts = facts
        self.elements: list[Element] = []
        self.relationships = 0

    def name(self, part: str) -> str:
        return f"{self.facts.urn}:{part}"

    def add(self, kind: str, part: str, **fields: Any) -> str:
        element = {"type": kind, "spdxId": self.name(part), "creationInfo": CREATION, **fields}
        self.elements.append({key: value for key, value in element.items() if value not in (None, [])})
        return str(element["spdxId"])

    def relate(self, origin: str, kind: str, targets: Sequence[str]) -> None:
        if targets:
            self.relationships += 1
            fields: Element = {"from": origin, "relationshipType": kind, "to": list(targets)}
            self.add("Relationship", f"relationship:{self.relationships}", **fields)


def build_sbom_document(facts: ReleaseFacts) -> dict[str, Any]:
    sbom = _Sbom(facts)
    tool = sbom.add("SoftwareAgent", "agent:stillhouse", name=facts.software)
    publisher = sbom.add("Organization", "agent:publisher", name=facts.publisher)
    dataset = _add_dataset(sbom, publisher)
    files = [_add_file(sbom, file) for file in facts.files]
    sbom.relate(dataset, "contains", files)
    license_name = facts.manifest.license
    stated = _add_license(sbom, "license", license_name) if license_name else NO_LICENSE_ASSERTION
    for kind in ("hasDeclaredLicense", "hasConcludedLicense"):
        sbom.relate(dataset, kind, [stated])
    _add_teachers(sbom, dataset)
    _add_student(sbom, dataset, publisher)
    _add_software(sbom, dataset)
    ancestors = [facts.find_urn(ancestor.release) for ancestor in facts.lineage.ancestors]
    sbom.relate(dataset, "descendantOf", ancestors)
    data_license = _add_license(sbom, "license:document", "CC0-1.0")
    parts = [element["spdxId"] for element in sbom.elements]
    whole = sbom.add(
        "software_Sbom", "sbom", rootElement=[dataset], element=parts, software_sbomType=["build"],
        profileConformance=list(PROFILES),
    )  # fmt: skip
    sbom.add(
        "SpdxDocument", "document",
        name=f"Bill of materials of the release {facts.name}", rootElement=[whole], element=[*parts, whole],
        dataLicense=data_license, profileConformance=list(PROFILES),
        **{"import": [{"type": "ExternalMap", "externalSpdxId": ancestor} for ancestor in ancestors]},
    )  # fmt: skip
    creation = {
        "type": "CreationInfo", "@id": CREATION, "specVersion": "3.0.1", "created": format_utc(facts.released),
        "createdBy": [tool],
    }  # fmt: skip
    return {"@context": CONTEXT_URL, "@graph": [creation, *sbom.elements]}


def _add_dataset(sbom: _Sbom, publisher: str) -> str:
    facts = sbom.facts
    checks = [f"check {check.type}: {check.about}" for check in facts.manifest.checks]
    filters = [f"filter {name}: {about}" for name, about in facts.filters.items()]
    collapse = facts.manifest.collapse
    return sbom.add(
        "dataset_DatasetPackage", "dataset",
        name=facts.name, description=facts.summary, software_packageVersion=facts.version,
        software_primaryPurpose="data", originatedBy=[publisher], suppliedBy=publisher,
        builtTime=format_utc(facts.manifest.started), releaseTime=format_utc(facts.released),
        dataset_datasetType=["text"], dataset_datasetSize=sum(file.size for file in facts.data_files),
        dataset_dataCollectionProcess=facts.collection,
        dataset_dataPreprocessing=[*checks, *filters, *([facts.people] if facts.people else [])],
        dataset_anonymizationMethodUsed=(
            ["personal data found by patterns is masked or its sample dropped"] if facts.masks_personal_data else []
        ),
        dataset_hasSensitivePersonalInformation="noAssertion",
        dataset_intendedUse="training small language models",
        dataset_knownBias=[
            "errors and biases of the models that wrote the text; cases that are hard for them are rare"
            if facts.recipe
            else "those of the given rows, which nobody measured",
            f"collapse verdict: {collapse.headline}" if collapse else "not assessed for collapse",
        ],
    )  # fmt: skip


def _add_file(sbom: _Sbom, file: ReleasedFile) -> str:
    purpose = "documentation" if file.path.endswith(".md") else "model" if file.path.endswith(".gguf") else "data"
    digest = {"type": "Hash", "algorithm": "sha256", "hashValue": file.sha256}
    part = f"file:{quote(file.path, safe='')}"
    return sbom.add("software_File", part, name=file.path, software_primaryPurpose=purpose, verifiedUsing=[digest])


def _add_license(sbom: _Sbom, part: str, expression: str) -> str:
    if expression.startswith("https://"):
        return sbom.add("simplelicensing_SimpleLicensingText", part, simplelicensing_licenseText=expression)
    return sbom.add("simplelicensing_LicenseExpression", part, simplelicensing_licenseExpression=expression)


def _add_teachers(sbom: _Sbom, dataset: str) -> None:
    for number, teacher in enumerate(sbom.facts.teachers):
        terms = teacher.terms
        supplier = sbom.add("Organization", f"agent:supplier:{number}", name=terms.supplier)
        model = sbom.add(
            "ai_AIPackage", f"model:{number}", name=terms.model, suppliedBy=supplier, software_primaryPurpose="model",
            software_homePage=terms.url, ai_informationAboutApplication=f"role in this run: {', '.join(teacher.roles)}",
            comment=terms.sentence,
        )  # fmt: skip
        known = _add_license(sbom, f"license:model:{number}", terms.license) if terms.license else NO_LICENSE_ASSERTION
        for kind in ("hasDeclaredLicense", "hasConcludedLicense"):
            sbom.relate(model, kind, [known])
        if "generator" in teacher.roles:
            sbom.relate(model, "generates", [dataset])
        else:
            sbom.relate(dataset, "usesTool", [model])


def _add_student(sbom: _Sbom, dataset: str, publisher: str) -> None:
    student = sbom.facts.manifest.student
    if student is None:
        return
    model = sbom.add(
        "ai_AIPackage", "student", name=f"student of {sbom.facts.name}", software_packageVersion=sbom.facts.version,
        software_primaryPurpose="model", suppliedBy=publisher, releaseTime=format_utc(sbom.facts.released),
        ai_typeOfModel=["causal language model"],
        ai_informationAboutTraining=(
            f"{student.parameters:,} parameters, started from {student.start}, {student.steps:,} steps on "
            f"{student.train_samples:,} conversations of this dataset; held-out loss {student.loss_before:.3f} to "
            f"{student.loss_after:.3f} nats per token"
        ),
    )  # fmt: skip
    for kind in ("hasDeclaredLicense", "hasConcludedLicense"):
        sbom.relate(model, kind, [NO_LICENSE_ASSERTION])
    sbom.relate(model, "trainedOn", [dataset])


def _add_software(sbom: _Sbom, dataset: str) -> None:
    packages = [
        sbom.add(
            "software_Package", f"software:{name}", name=name, software_packageVersion=version,
            software_packageUrl=f"pkg:pypi/{name}@{quote(version, safe='.')}", software_primaryPurpose="library",
        )
        for name, version in sorted(sbom.facts.manifest.versions.items())
    ]  # fmt: skip
    sbom.relate(dataset, "usesTool", packages)
