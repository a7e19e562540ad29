"""What a client of the MCP server may not do, and the budget that it cannot raise."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from core.config.recipe import BudgetConfig
from core.errors import RecipeError, RunFailed, UsageError
from core.sample import Spending
from flows.agent_server.access_policy import AccessPolicy
from flows.agent_server.run_process import RunProcess
from flows.agent_server.server_budget import ServerBudget, list_budget_overrides
from flows.agent_server.server_tools import ServerTools
from tests.support.waiting import HANG_SECONDS

RECIPE = 'name = "mine"\nextends = "smoke"\n'


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a recipe, next to a file that is outside it."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "mine.toml").write_text(RECIPE)
    (tmp_path / "outside.jsonl").write_text('{"topic": "a private diary"}\n')
    (folder / "link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    (folder / "documents").mkdir()
    (folder / "linked").mkdir()
    (folder / "linked" / "link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    (folder / "documents" / "link.txt").symlink_to(tmp_path / "outside.jsonl")
    monkeypatch.chdir(folder)
    return folder


def build_policy(root: Path, **allowed: object) -> AccessPolicy:
    return AccessPolicy(root.resolve(), root.resolve() / "data/runs", **allowed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("seeds.path=../outside.jsonl", "outside.jsonl is outside "),
        ("seeds.path=link.jsonl", "seeds.path: "),
        ("seeds.documents=documents", "seeds.documents: "),
        ("collapse.reference=/etc/hostname", "collapse.reference: /etc/hostname is outside "),
        ("lineage.real=../outside.jsonl", "lineage.real: "),
        ("teachers.main.model=fake/replay:../outside.jsonl", "teachers.main.model: "),
        ("seeds.draw.tone=../outside.jsonl", "seeds.draw.tone: "),
        ('filters=[{type="contamination", sets=["../outside.jsonl"]}]', "filters.0.sets.0: "),
        ('verifiers=[{type="mine", path="check.py"}]', "verifiers.0.path: names a program"),
        ('tools=[{command=["sh", "-c", "true"]}]', "tools.0: names a program"),
        ('teachers.main={model="vllm/a", engine={trust_remote_code=true}}', "teachers.main.engine: names options of a program"),
        ("teachers.main.base_url=https://example.com/v1", "--allow-url https://example.com"),
        ("teachers.main.base_url=http://localhost.example.com/v1", "--allow-url http://localhost.example.com"),
        ("student.distillation={teacher='https://example.com/v1#m', signals='top_k'}", "--allow-url https://example.com"),
        ("student.distillation.cache=../x", "student.distillation.cache: "),
        ("collapse.reference=linked", "collapse.reference: "),
        ('scale={runner="dask", address="tcp://10.0.0.1:8786"}', "scale.address: tcp://10.0.0.1:8786 is neither"),
    ],
)  # fmt: skip
def test_a_recipe_names_no_file_program_or_endpoint_that_is_not_allowed(
    root: Path, setting: str, sentence: str
) -> None:
    with pytest.raises(RecipeError) as error:
        build_policy(root).check_recipe("mine.toml", [setting])
    assert sentence in str(error.value)


def test_a_recipe_may_use_shipped_files_its_own_and_what_is_allowed(root: Path) -> None:
    (root / "seeds.jsonl").write_text('{"topic": "tea"}\n')
    code = ['verifiers=[{type="mine", path="check.py"}]', "teachers.main.base_url=https://example.com/v1"]
    policy = build_policy(root, allow_code=True, allowed_urls=("https://example.com/other",))
    assert policy.check_recipe("smoke", []).name == "smoke"
    assert policy.check_recipe("mine.toml", ["seeds.path=seeds.jsonl", *code]).seeds.path == "seeds.jsonl"


@pytest.mark.parametrize(
    "name", ["../outside.jsonl", "link.jsonl", "/etc/hostname", "s3://bucket/rows", "documents/../.."]
)
def test_no_dataset_or_recipe_is_outside_the_root(root: Path, name: str) -> None:
    policy = build_policy(root)
    for locate in (
        lambda: policy.locate_dataset(name, "source"),
        lambda: policy.locate_reference(name),
        lambda: policy.check_recipe(name, []),
    ):
        with pytest.raises(UsageError, match=r"outside|not a path"):
            locate()


def test_a_link_within_a_folder_leads_nowhere(root: Path) -> None:
    policy = build_policy(root)
    for locate in (lambda: policy.locate_dataset("linked", "source"), lambda: policy.locate_reference("linked")):
        with pytest.raises(UsageError, match=r"link\.jsonl is outside"):
            locate()


def test_a_recipe_that_extends_one_outside_the_root_is_refused(root: Path) -> None:
    (root.parent / "base.toml").write_text('name = "base"\nextends = "smoke"\n')
    (root / "mine.toml").write_text('name = "mine"\nextends = "../base.toml"\n')
    with pytest.raises(UsageError, match=r"extends: .*base\.toml' is outside"):
        build_policy(root).check_recipe("mine.toml", [])


def test_a_recipe_that_gets_a_program_after_its_check_runs_none(root: Path) -> None:
    policy = build_policy(root, allow_run=True)
    assert policy.check_recipe("mine.toml", []).verifiers
    (root / "check.py").write_text('open("ran", "w").close()\n')
    (root / "mine.toml").write_text(RECIPE + '[[verifiers]]\ntype = "mine"\npath = "check.py"\n')
    for allow_code in (False, True):
        with closing(RunProcess("mine", ["validate", "mine.toml"], replace(policy, allow_code=allow_code))) as child:
            child.wait(HANG_SECONDS)
            assert (root / "ran").exists() == allow_code, child.read_log_tail()


def test_a_read_only_server_writes_and_spends_nothing(root: Path) -> None:
    tools = ServerTools(build_policy(root), ServerBudget(None, None))
    before = sorted(root.rglob("*"))
    for name, call in {
        "preview": lambda: tools.preview("smoke", {}, 1),
        "run": lambda: tools.run("smoke", {}, resume=False, student=False),
        "filter": lambda: tools.filter_rows("mine.toml", "clean", None, None),
        "release": lambda: tools.release("smoke-00000000"),
    }.items():
        with pytest.raises(UsageError, match=f"^{name}: this server is read-only; .* --allow-run"):
            call()
    assert tools.validate("mine.toml", {"samples": 5}).valid
    assert tools.status(None).runs == []
    assert sorted(root.rglob("*")) == before


def test_a_budget_is_shared_by_all_runs_and_only_lowered_by_a_recipe() -> None:
    budget = ServerBudget(100, 2.0)
    budget.record(1, Spending(calls=30, cost=0.5))
    assert list_budget_overrides(budget.limit(BudgetConfig())) == ["budget.calls=70", "budget.cost=1.5"]
    assert budget.limit(BudgetConfig(calls=10, cost=9.0)) == BudgetConfig(calls=10, cost=1.5)
    resumed = budget.limit(BudgetConfig(), earlier=Spending(calls=1000, cost=7.0))
    assert (resumed.calls, resumed.cost) == (1070, 8.5)
    budget.record(1, Spending(calls=29, cost=0.5))  # a call in flight was settled
    budget.record(2, Spending(calls=71))
    with pytest.raises(RunFailed, match=r"100 of 100 requests; .* --max-requests"):
        budget.limit(BudgetConfig())
    with pytest.raises(UsageError, match="in EUR, which is not compared with USD"):
        budget.check_currencies({None, "USD", "EUR"})
