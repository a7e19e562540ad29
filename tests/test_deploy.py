"""The files of `deploy/`, checked against schemas, Prefect's own Kubernetes worker and the code."""

import asyncio
import json
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft7Validator
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.settings.models.root import Settings

from core.project_files import PROJECT
from core.runs.run_dir import RUNS_FOLDER
from core.weights.packaged_weights import TEACHER_WEIGHTS
from flows.cli import PACKAGES

DEPLOY = PROJECT / "deploy"
POOL = "stillhouse"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
MAKEFILE = (PROJECT / "Makefile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
TEMPLATE = json.loads((DEPLOY / "kubernetes" / "job-template.json").read_text())
KUBERNETES = "1.33"
SERVER = "http://prefect-server.stillhouse.svc.cluster.local:4200/api"


def environment_of_the_image() -> dict[str, str]:
    blocks = re.findall(r"^ENV (\w+=.*)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)
    return dict(pair.split("=", 1) for block in blocks for pair in block.split())


def test_the_dockerfile_has_no_fault_that_hadolint_knows() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_images_have_what_make_installs_but_for_development() -> None:
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, re.MULTILINE)
    installed = re.findall(r"^(?:ALL_)?EXTRAS := (?:\$\(EXTRAS\),)?(\S+)$", MAKEFILE, re.MULTILINE)
    left_out = {"train", "export", "improve", "tracking", "harness", "dev"}
    assert set(",".join(installed).split(",")) - set(extras.split(",")) == left_out
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    (weights,) = re.findall(r"^ARG WEIGHTS=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert weights == TEACHER_WEIGHTS.distribution
    assert f"\n{weights} \\\n" in (PROJECT / "requirements" / "all-extras.txt").read_text()


@pytest.mark.attack(
    "the base image's tag is moved",
    "the builder must give a digest",
)
def test_every_image_is_built_on_a_digest_that_the_builder_must_name() -> None:
    stages: set[str] = set()
    for base, stage in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE):
        assert base in stages or re.search(r"@(sha256:[0-9a-f]{64}|\$\{PYTHON_DIGEST\})$", base), base
        stages.add(stage)
    assert len(stages) == DOCKERFILE.count("\nFROM ")
    assert "\nARG PYTHON_DIGEST\n" in DOCKERFILE, "an unchecked digest must not be the default"
    assert SERVICES["worker"]["build"]["args"]["PYTHON_DIGEST"].startswith("${STILLHOUSE_PYTHON_DIGEST:?")


def test_the_images_hold_the_application_and_no_run() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert let_in >= {
        *PACKAGES,
        "pyproject.toml",
        "requirements/build.txt",
        "requirements/all-extras.txt",
        "prefect.yaml",
    }
    assert all((PROJECT / name).exists() for name in let_in)
    assert not {"data", RUNS_FOLDER, "data/releases"} & let_in
    tracked = {path.parent.name for path in (PROJECT / "data").glob("*/README.md")} | {"documents"}
    assert {f"data/{name}" for name in tracked} <= let_in, "recipes name files in all of them"


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("compose*.yaml")), ids=lambda file: file.name)
def test_compose_files_keep_to_the_compose_specification(file: Path) -> None:
    vendored = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    faults = Draft7Validator(json.loads(vendored.read_text())).iter_errors(yaml.safe_load(file.read_text()))
    assert [f"{fault.json_path}: {fault.message}" for fault in faults] == []


REQUIRED = re.compile(r"\$\{(PREFECT_API_AUTH_STRING):\?[^}]+\}")


@pytest.mark.attack(
    "Compose without a secret, or answering foreign pages",
    "nothing starts; one origin",
)
def test_compose_starts_no_server_without_a_secret_and_lets_no_foreign_page_in() -> None:
    server = SERVICES["server"]["environment"]
    assert REQUIRED.fullmatch(server["PREFECT_SERVER_API_AUTH_STRING"])
    for client in ("deploy", "worker"):
        assert REQUIRED.fullmatch(SERVICES[client]["environment"]["PREFECT_API_AUTH_STRING"]), client
    page = server["PREFECT_SERVER_UI_API_URL"].removesuffix("/api")
    assert server["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == page, "the page's own address, and no other"


def names_of_settings(model: type[Any], found: set[str]) -> set[str]:
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            names_of_settings(field.annotation, found)
        prefix = model.model_config["env_prefix"]
        aliases = getattr(field.validation_alias, "choices", [])
        found |= {f"{prefix}{name}".upper(), *(alias.upper() for alias in aliases if isinstance(alias, str))}
    return found


def test_variables_that_are_set_are_read_by_someone() -> None:
    known = names_of_settings(Settings, set())
    code = "".join(path.read_text() for package in PACKAGES for path in (PROJECT / package).rglob("*.py"))
    code += (PROJECT / "prefect.yaml").read_text()
    named = set(environment_of_the_image())
    for service in SERVICES.values():
        named |= set(service.get("environment") or {})
    named |= set(re.findall(r"\b(PREFECT_\w+)=", (DEPLOY / "compose.yaml").read_text()))
    for values in ("server", "worker"):
        named |= set(re.findall(r"name: (PREFECT_\w+)", (DEPLOY / f"kubernetes/{values}-values.yaml").read_text()))
    unknown = {name for name in named if name.startswith("PREFECT_") and name not in known}
    unknown |= {name for name in named if name.startswith("STILLHOUSE_") and name not in code}
    assert unknown == set()


def job(**variables: Any) -> dict[str, Any]:
    """The job that Prefect's worker would ask a cluster for."""
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    with temporary_settings({PREFECT_API_URL: SERVER}):
        made = asyncio.run(KubernetesWorkerJobConfiguration.from_template_and_values(TEMPLATE, variables))
        made.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="smoke"))
    manifest: dict[str, Any] = made.job_manifest
    return manifest


def check(resource: dict[str, Any]) -> None:
    """Raises where Kubernetes would refuse the resource."""
    kubernetes_validate.validate(resource, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    "variables",
    [
        {"env": {"HF_HUB_OFFLINE": "1"}},
        {"image": "stillhouse:train", "gpus": 1, "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
        {"seccomp": "Unconfined", "apparmor": {"type": "Unconfined"}, "node_selector": {"disk": "fast"}},
    ],
)
def test_a_flow_run_becomes_a_job_that_kubernetes_takes(variables: dict[str, Any]) -> None:
    found = job(**variables)
    found["metadata"]["name"] = "smoke"  # the cluster makes it of generateName
    check(found)
    pod = found["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["env"], "in place of the image's entry point"
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert {"name": "PREFECT_API_URL", "value": SERVER} in container["env"]
    assert container["image"] == variables.get("image", "stillhouse:slim")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == variables.get("gpus", 0)
    runs = PurePosixPath(environment_of_the_image()["STILLHOUSE_RUNS"])
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounted[str(runs.parent)]] == {
        "name": "data", "persistentVolumeClaim": {"claimName": "stillhouse-data"},
    }  # fmt: skip


@pytest.mark.parametrize("name", ["stillhouse", "vllm"])
def test_manifests_are_what_kubernetes_takes(name: str) -> None:
    resources = list(yaml.safe_load_all((DEPLOY / "kubernetes" / f"{name}.yaml").read_text()))
    assert len(resources) >= 2
    for resource in resources:
        check(resource)


@pytest.mark.attack(
    "a pod asks the Prefect server",
    "one Kubernetes secret for server, worker, jobs",
)
def test_the_clusters_server_and_all_its_clients_have_one_secret() -> None:
    server, worker = (
        yaml.safe_load((DEPLOY / "kubernetes" / f"{name}-values.yaml").read_text()) for name in ("server", "worker")
    )
    basic = {"enabled": True, "existingSecret": "prefect-auth"}
    assert server["server"]["basicAuth"] == basic
    assert worker["worker"]["selfHostedServerApiConfig"]["basicAuth"] == basic
    assert "PREFECT_SERVER_CORS_ALLOWED_ORIGINS" in {one["name"] for one in server["server"]["env"]}
    deploying = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "stillhouse.yaml").read_text()))[1]
    (container,) = deploying["spec"]["template"]["spec"]["containers"]
    given = {one["name"]: one.get("valueFrom") for one in container["env"]}
    assert given["PREFECT_API_AUTH_STRING"] == {"secretKeyRef": {"name": "prefect-auth", "key": "auth-string"}}


def test_the_cluster_has_one_pool_one_address_and_the_prefect_that_was_tested() -> None:
    server, worker = (
        yaml.safe_load((DEPLOY / "kubernetes" / f"{name}-values.yaml").read_text()) for name in ("server", "worker")
    )
    deploying = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "stillhouse.yaml").read_text()))[1]
    (container,) = deploying["spec"]["template"]["spec"]["containers"]
    assert {"name": "PREFECT_API_URL", "value": SERVER} in container["env"]
    assert worker["worker"]["selfHostedServerApiConfig"]["apiUrl"] == SERVER
    assert worker["worker"]["config"]["workPool"] == POOL
    (version,) = re.findall(r"^prefect==(\S+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE)
    assert server["global"]["prefect"]["image"]["prefectTag"].startswith(f"{version}-")
    assert worker["worker"]["image"]["prefectTag"].startswith(f"{version}-")
