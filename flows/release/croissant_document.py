"""`croissant.json`: the metadata of a release in the form Croissant 1.1 (http://mlcommons.org/croissant/1.1), which search
engines and loaders of datasets read, with provenance in PROV-O. Reads the schemas of Parquet files, no row.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.data.dataset_formats import COLUMN_MEANINGS
from flows.release.release_facts import (
    DATASET_FOLDER,
    SPLITS,
    ReleasedFile,
    ReleaseFacts,
    build_license_url,
    build_urn,
    format_utc,
)

if TYPE_CHECKING:
    import polars as pl

CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context of the specification's appendix in the form of its published examples, and `prov`."""
MEDIA_TYPES = {".parquet": "application/x-parquet", ".jsonl": "application/jsonlines"}


def build_croissant_document(facts: ReleaseFacts, folder: Path) -> dict[str, Any]:
    """The document of the release whose files are in `folder`."""
    manifest, mix = facts.manifest, facts.lineage.mix
    publisher = {"@type": "sc:Organization", "name": facts.publisher}
    return {
        "@context": dict(CONTEXT),
        "@type": "sc:Dataset",
        "@id": facts.urn,
        "name": facts.name,
        "description": facts.summary,
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "license": _build_license(manifest.license),
        "url": facts.urn,
        "creator": publisher,
        "publisher": publisher,
        "version": facts.version,
        "datePublished": format_utc(facts.released),
        "dateCreated": format_utc(manifest.started),
        "keywords": ["synthetic", "stillhouse", facts.recipe.family] if facts.recipe else ["stillhouse", "filtered"],
        "isLiveDataset": False,
        "distribution": [_build_file_object(file) for file in facts.data_files],
        "recordSet": list(_build_record_sets(facts, folder)),
        "prov:wasGeneratedBy": _build_activity(facts),
        "prov:wasAttributedTo": [_build_agent(teacher.terms.model) for teacher in facts.teachers],
        "prov:wasDerivedFrom": [
            *({"@id": facts.find_urn(name), "@type": "prov:Entity", "prov:label": name} for name in mix.earlier),
            *(
                {"@id": build_urn("file", source.name), "@type": "prov:Entity", "prov:label": f"real rows of {source.name}"}
                for source in facts.sources
                if source.kind == "real rows"
            ),
        ],
        **({"prov:wasRevisionOf": {"@id": facts.find_urn(mix.parent)}} if mix.parent else {}),
    }  # fmt: skip


def _build_license(license_name: str | None) -> str | dict[str, str]:
    if license_name is None:
        return {"@type": "sc:CreativeWork", "name": "No licence is stated"}
    return build_license_url(license_name) or {"@type": "sc:CreativeWork", "name": license_name}


def _build_activity(facts: ReleaseFacts) -> dict[str, Any]:
    used = [_build_agent(teacher.terms.model) for teacher in facts.teachers]
    used += [
        {"@id": build_urn("file", source.name), "@type": "prov:Entity", "prov:label": f"{source.kind}: {source.name}",
         **({"identifier": source.digest} if source.digest else {})}
        for source in facts.sources
    ]  # fmt: skip
    return {
        "@id": build_urn("run", facts.manifest.run),
        "@type": "prov:Activity",
        "prov:label": facts.activity,
        "prov:startedAtTime": format_utc(facts.manifest.started),
        "prov:endedAtTime": format_utc(facts.released),
        "prov:used": used,
        "prov:wasAssociatedWith": {
            "@id": build_urn("software", facts.software),
            "@type": "prov:SoftwareAgent",
            "prov:label": facts.software,
        },
    }


def _build_agent(model: str) -> dict[str, str]:
    return {"@id": build_urn("model", model), "@type": "prov:SoftwareAgent", "prov:label": model}


def _build_file_object(file: ReleasedFile) -> dict[str, str]:
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.size} B",
        "encodingFormat": MEDIA_TYPES.get(Path(file.path).suffix, "application/octet-stream"),
        "sha256": file.sha256,
    }


def _build_record_sets(facts: ReleaseFacts, folder: Path) -> "list[dict[str, Any]]":
    """One for each form and split, since a file of Parquet has exactly its rows."""
    import polars as pl

    paths = {file.path for file in facts.data_files}
    sets = []
    for number, form in enumerate(facts.manifest.formats):
        base = f"{DATASET_FOLDER}{form.name}/" if number else DATASET_FOLDER
        for split in SPLITS:
            path, rows = f"{base}{split}.parquet", getattr(form, split)
            if path in paths and rows:
                name = f"{form.name}-{split}"
                columns = pl.read_parquet_schema(folder / path)
                sets.append({
                    "@type": "cr:RecordSet",
                    "@id": name,
                    "name": name,
                    "description": f"{rows:,} rows of the form {form.name} in the split {split}.",
                    **({"key": {"@id": f"{name}/id"}} if "id" in columns else {}),
                    "field": [_build_field(f"{name}/{column}", column, kind, path) for column, kind in columns.items()],
                })  # fmt: skip
    return sets


def _build_field(name: str, column: str, kind: "pl.DataType", path: str) -> dict[str, Any]:
    import polars as pl

    field: dict[str, Any] = {
        "@type": "cr:Field", "@id": name, "name": column, "description": COLUMN_MEANINGS.get(column, column),
    }  # fmt: skip
    is_array = isinstance(kind, pl.List)
    inner = kind.inner if isinstance(kind, pl.List) else kind
    if is_array:
        field |= {"isArray": True, "arrayShape": "-1"}
    source: dict[str, Any] = {"fileObject": {"@id": path}, "extract": {"column": column}}
    if isinstance(inner, pl.Struct):
        return field | {
            "subField": [
                {
                    "@type": "cr:Field",
                    "@id": f"{name}/{part.name}",
                    "name": part.name,
                    "dataType": _name_type(part.dtype),  # type: ignore[arg-type]
                    "source": source | {"transform": {"jsonPath": part.name}},
                }
                for part in inner.fields
            ]
        }
    return field | {"dataType": _name_type(inner), "source": source}  # type: ignore[arg-type]


def _name_type(kind: "pl.DataType") -> str:
    if kind.is_integer():
        return "sc:Integer"
    return "sc:Float" if kind.is_float() else "sc:Text"
