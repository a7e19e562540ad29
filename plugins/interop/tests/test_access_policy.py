"""What a client of the MCP server may not do, and the budget that it cannot raise."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from core.config.recipe import BudgetConfig
from core.errors import RecipeError, RunFailed, UsageError
from core.sample import Spending
from plugins.interop.access_policy import AccessPolicy
from plugins.interop.run_process import RunProcess, ServerBudget, list_budget_overrides
from plugins.interop.server_tools import ServerTools
from tests.support.waiting import HANG_SECONDS

RECIPE = 'name = "mine"\nextends = "smoke"\n'


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a recipe, next to a file that is outside it."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "mine.toml").write_text(RECIPE)
    (tmp_path / "outside.jsonl").write_text('{"topic": "a private diary"}\n')
    (folder / "c\nred").symlink_to(tmp_path / "outside.jsonl")
    (folder / "link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    (folder / "documents").mkdir()
    (folder / "linked").mkdir()
    (folder / "linked" / "link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    (folder / "documents" / "link.txt").symlink_to(tmp_path / "outside.jsonl")
    monkeypatch.chdir(folder)
    return folder


def build_policy(root: Path, **allowed: object) -> AccessPolicy:
    return AccessPolicy(root.resolve(), root.resolve() / "data/runs", **allowed)  # type: ignore[arg-type]


@pytest.mark.attack(
    "a client of the MCP server names files outside its folder (a path, a symlink, a recipe that extends, a "
    "recording, an evaluation set), a program, a foreign endpoint, or a higher budget; a text of a recipe is a "
    "key",
    "refused by key, before anything is loaded; a budget is lowered to what is left; keys are redacted in results",
)
@pytest.mark.attack(
    "a client of the MCP server names weights, of the Hub or of its folder, or a path with a line break",
    "refused by key",
)
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
        ('tools=[{command=["sh", "-c", "true"]}]', "tools.0.command: names a program"),
        ('teachers.main={model="vllm/a", engine={trust_remote_code=true}}', "teachers.main.engine: names options of a program"),
        ("teachers.main.base_url=https://example.com/v1", "--allow-url https://example.com"),
        ("teachers.main.base_url=http://localhost.example.com/v1", "--allow-url http://localhost.example.com"),
        ("student.distillation={teacher='https://example.com/v1#m', signals='top_k'}", "--allow-url https://example.com"),
        ("student.distillation.cache=../x", "student.distillation.cache: "),
        ("collapse.reference=linked", "collapse.reference: "),
        (r'seeds.path="c\nred"', "seeds.path: "),
        ('seeds.draw.tone="""c\nred"""', "seeds.draw.tone: "),
        ("teachers.main={model='local/hf:stranger/model:x.gguf'}", "teachers.main.model: loads weights"),
        ("teachers.main={model='local/mine.gguf'}", "teachers.main.model: loads weights"),
        ("teachers.main={model='vllm/a'}", "teachers.main.model: loads weights"),
        ('teachers.main={model="local/smollm2-135m", draft="x", logprobs=false}', "teachers.main.draft: loads weights"),
        ("student.start=evil/model", "student.start: loads weights"),
        ("student.distillation={teacher='evil/model', signals='dense'}", "student.distillation.teacher: loads weights"),
        ("lineage.promote=true", "lineage.promote: loads weights"),
        ('scale={runner="dask", address="tcp://10.0.0.1:8786"}', "scale.address: tcp://10.0.0.1:8786 is neither"),
    ],
)  # fmt: skip
def test_a_recipe_names_no_file_program_or_endpoint_that_is_not_allowed(
    root: Path, setting: str, sentence: str
) -> None:
    with pytest.raises(RecipeError) as error:
        build_policy(root).check_recipe("mine.toml", [setting])
    assert sentence in str(error.value)


OWN_PORT = "teachers.main={model='openai/m', base_url='http://127.0.0.1:9/v1', api_key_env='PRIVATE_KEY'}"


@pytest.mark.attack(
    "a client of the MCP server sends a key to a port of this machine or to a foreign provider",
    "refused by key, unless the user allows both the variable and the address",
)
@pytest.mark.parametrize(
    ("setting", "problem", "allowed"),
    [
        (OWN_PORT, "teachers.main.api_key_env: the key in PRIVATE_KEY would go to http://127.0.0.1:9; ", "PRIVATE_KEY"),
        (OWN_PORT.replace("PRIVATE_KEY", "OPENAI_API_KEY"), "OPENAI_API_KEY would go to http://127.0.0.1:9", "OPENAI_API_KEY"),
        ("teachers.main={model='openai/m', api_key_env='PRIVATE_KEY'}", "go to https://api.openai.com", "PRIVATE_KEY"),
        ("tools=[{url='http://127.0.0.1:9/mcp', api_key_env='PRIVATE_KEY'}]", "tools.0.api_key_env: ", "PRIVATE_KEY"),
        ("student.distillation={teacher='http://127.0.0.1:9/v1#m', signals='top_k'}", "student.distillation.", "OPENAI_API_KEY"),
    ],
)  # fmt: skip
def test_a_key_goes_to_its_own_provider_or_where_the_user_allowed_it(
    root: Path, setting: str, problem: str, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PRIVATE_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    if "127.0.0.1" in setting:
        build_policy(root).check_recipe("mine.toml", [setting])  # nothing is sent
    for name in ("PRIVATE_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "opensesame-1234")
    places = ("http://127.0.0.1:9", "https://api.openai.com")
    for partly in ({}, {"allowed_keys": (allowed,)}, {"allowed_urls": places}):
        with pytest.raises(RecipeError) as error:
            build_policy(root, **partly).check_recipe("mine.toml", [setting])
        assert problem in str(error.value)
    build_policy(root, allowed_keys=(allowed,), allowed_urls=places).check_recipe("mine.toml", [setting])
    build_policy(root).check_recipe("mine.toml", ["teachers.main={model='openai/gpt-5-mini'}"])


TABLE = """date = 2026-01-01
source = "mine"
[mine]
protocol = "openai"
base_url = "https://api.openai.com"
models = { "*" = { input_price = 0, output_price = 0 } }
"""


@pytest.mark.attack(
    "a client of the MCP server sets prices of zero, in a recipe or in a `prices.toml`",
    "refused with `--max-usd`",
)
@pytest.mark.parametrize(
    ("teacher", "table", "problem"),
    [
        (
            "model='openai/gpt-5-mini', input_price=0, output_price=0",
            "",
            "its prices are lower than those of data/prices.toml",
        ),
        ("model='openai/gpt-5-mini', input_price=9, output_price=9, reasoning_price=0", "", "its prices are lower"),
        ("model='openai/gpt-5-mini'", TABLE, "its prices are lower"),
        ("model='openai/of-my-own', input_price=0, output_price=0", "", "is not in data/prices.toml"),
        (
            "model='openai/m', base_url='http://127.0.0.1:9/v1', api_key_env='', input_price=0, output_price=0",
            "",
            "is not in data/prices.toml",
        ),
    ],
)
def test_no_price_of_a_client_raises_the_limit_of_cost(
    root: Path, teacher: str, table: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "opensesame-1234")
    setting = [f"teachers.main={{{teacher}}}"]
    if table:
        (root / "prices.toml").write_text(table)
    with pytest.raises(RecipeError) as error:
        build_policy(root, limits_cost=True).check_recipe("mine.toml", setting)
    assert problem in str(error.value)
    build_policy(root, limits_requests=True).check_recipe("mine.toml", setting)
    both = build_policy(root, limits_cost=True, limits_requests=True)
    if "not in" in problem:  # requests limit it
        both.check_recipe("mine.toml", setting)
    else:
        with pytest.raises(RecipeError, match=problem):
            both.check_recipe("mine.toml", setting)
    (root / "prices.toml").unlink(missing_ok=True)
    for fair in (
        "model='openai/gpt-5-mini'",
        "model='openai/gpt-5-mini', input_price=1, output_price=9",
        "model='fake/writer'",
    ):
        build_policy(root, limits_cost=True).check_recipe("mine.toml", [f"teachers.main={{{fair}}}"])


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
