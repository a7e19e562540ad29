"""Keys never reach a text: whole, in part, in a URL, or where a recipe expects the name of a variable."""

import asyncio
from pathlib import Path

import pytest

from core.config.loading import load_recipe, parse_settings
from core.config.students import StudentConfig
from core.config.teachers import TeacherConfig
from core.errors import RecipeError, UsageError
from core.secrets import read_key, redact_excerpt, redact_text
from teachers.endpoint import open_session

KEY = "sk-canary-93121"


@pytest.mark.attack(
    "a proxy or database URL with a password in an error",
    "redacted, as are user names without a password",
)
def test_secrets_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret")
    assert redact_text("refused: sk-very-secret") == "refused: [SOME_API_KEY]"
    assert redact_text("Authorization: Bearer abc") == "Authorization: Bearer [redacted]"
    assert redact_text("postgresql+asyncpg://us:p4ss@host:5432/db") == "postgresql+asyncpg://us:[redacted]@host:5432/db"
    assert redact_text(f"http://{KEY}@proxy:3128") == "http://[redacted]@proxy:3128"
    assert redact_text("http://127.0.0.1:4200/api@home") == "http://127.0.0.1:4200/api@home"


def test_a_key_is_redacted_whatever_its_variable_is_called_also_where_a_server_cut_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MYCRED", f"{KEY}\n")
    assert read_key("MYCRED") == KEY
    assert redact_text(f"the key {KEY} is wrong, {KEY}!") == "the key [MYCRED] is wrong, [MYCRED]!"
    assert redact_text(f'{{"error": "{KEY[:12]}"}} {KEY[:9]}') == '{"error": "[MYCRED]"} [MYCRED]'
    for place in range(280, 301):
        said = redact_excerpt("x" * place + KEY, 300)
        assert len(said) <= 300
        assert KEY[:3] not in said


@pytest.mark.attack(
    "a recipe, `--set` or student table contains a key (in a URL, or as variable name)",
    "refused without repeating it, before storage",
)
@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("teachers.main.base_url", f"http://user:{KEY}@localhost/v1", "has a user name or password before the host"),
        ("teachers.main.base_url", f"http://{KEY}@localhost/v1", "has a user name or password before the host"),
        ("teachers.main.base_url", f"http://localhost/v1?key={KEY}", "has a query or a fragment"),
        ("teachers.main.base_url", f"htp://localhost/{KEY}", "must be http:// or https:// with a host"),
        ("teachers.main.api_key_env", KEY, "must be the name of an environment variable"),
        ("student.distillation.teacher", f"http://user:{KEY}@localhost/v1#m", "has a user name or password"),
        ("student.distillation.api_key_env", KEY, "must be the name of an environment variable"),
    ],
)
def test_a_recipe_that_holds_a_key_is_refused_in_a_sentence_without_it(
    key: str, value: str, sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('name = "x"\nseeds.path = "x"\nteachers.main.model = "openai/m"\n[student]\n')
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, [f"{key}={value}"])
    assert f"{key}: {sentence}" in str(caught.value)
    assert KEY not in str(caught.value)
    if key.startswith("student."):
        with pytest.raises(RecipeError) as caught:
            parse_settings(StudentConfig, [f"{key.removeprefix('student.')}={value}"])
        assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "sent"), [("sk-key\n", "Bearer sk-key"), (" sk-key\r\n", "Bearer sk-key"), ("\n", None)]
)
def test_a_key_loses_the_line_break_of_its_file(value: str, sent: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def header() -> str | None:
        async with open_session(TeacherConfig(model="openai/x", api_key_env="MY_KEY")) as session:
            return session.headers.get("Authorization")

    monkeypatch.setenv("MY_KEY", value)
    assert asyncio.run(header()) == sent


@pytest.mark.attack(
    "a key with line breaks or control characters",
    "stripped at the end, else refused without printing it",
)
@pytest.mark.parametrize("value", ["sk-one\nsk-two", "sk-one\x1b", "sk-\u00e9", "sk one"])
def test_what_is_no_key_is_refused_without_showing_it(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(UsageError, match="environment variable MY_KEY contains") as caught:
        open_session(TeacherConfig(model="openai/x", api_key_env="MY_KEY"))
    assert "sk" not in str(caught.value)
