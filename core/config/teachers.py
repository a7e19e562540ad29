"""The `[teachers]` tables of a recipe: how to reach each model, its limits, its prices, the keys of its requests, and what is
known of hosted models. Knows no protocol.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, field_validator, model_validator

from core.addresses import normalize_base_url
from core.config.agents import REASONING_BUDGETS, ReasoningEffort, reasoning_tokens
from core.config.base import RecipeTable
from core.prices import TokenPrices
from core.project_files import find_referenced_file
from core.secrets import validate_variable_name
from core.shared_options import name_student_file

REPLAY_PREFIX = "fake/replay:"
STUDENT_PREFIX = "local/student:"
"""`local/student:RECIPE/GENERATION` is the promoted student of a release. A run sets it; a recipe cannot."""
PROMOTED_WEIGHTS = f"teacher/{name_student_file()}"
"""In a release: the weights of its promoted student."""
NGRAM_DRAFT = "ngram"
"""The value of `draft` for what followed the same tokens earlier in the text."""
MTP_DRAFT = "mtp"
"""The value of `draft` for a block for multi-token prediction in the teacher's own file."""
MODELLESS_DRAFTS = (NGRAM_DRAFT, MTP_DRAFT)
DRAFTING_PROVIDERS = ("local", "vllm")
OWN_PROVIDERS = {"local", "vllm", "fake"}
"""Providers that run on the user's own machine, where a call costs nothing."""
OPENAI_URL = "https://api.openai.com/v1"
PRICE_KEYS = ("input_price", "output_price", "cached_price", "cache_write_price", "reasoning_price")
"""In the order of `TokenPrices`."""
BATCH_DISCOUNT = 0.5
"""Share of all prices that a batch saves, at OpenAI and Anthropic alike."""
CACHE_WRITE_FACTORS = {"anthropic": 1.25}
"""The price of storing a prompt for five minutes, in prices of a prompt, by provider; 1 where storing costs nothing extra."""
URL_OF_PROVIDER = {
    "openai": OPENAI_URL,
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
}
KEY_OF_PROVIDER = {"anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}
"""Environment variables with the API keys of hosted providers with a protocol of their own."""
CONNECTION_KEYS = {
    *PRICE_KEYS,
    "api_key_env", "max_concurrent", "requests_per_minute", "tokens_per_minute", "timeout_seconds",
    "max_retries", "outage_seconds", "gpu_layers", "threads",
    "batch", "batch_size", "draft",
}  # fmt: skip
"""Keys that affect connection, speed and cost of a teacher, not its replies. `base_url` is not included: another endpoint may
serve another model under the same name."""


StructuredOutput = Literal["json_schema", "tool", "plain"]
SchemaThinking = Literal["native", "tagged"]
ChatDialect = Literal["openai", "openrouter", "deepseek", "vllm", "sglang", "llama.cpp", "generic"]
"""What an OpenAI-compatible endpoint accepts beyond the keys that all of them have."""
DIALECT_OF_DOMAIN: dict[str, ChatDialect] = {
    "api.openai.com": "openai", "openrouter.ai": "openrouter", "api.deepseek.com": "deepseek",
}  # fmt: skip
DIALECT_OF_PROVIDER: dict[str, ChatDialect] = {"vllm": "vllm", "local": "llama.cpp"}


class TeacherConfig(RecipeTable):
    """Prices are per million tokens, in the budget's currency."""

    model: str = Field(pattern=r"^[a-z][a-z0-9_-]*/.+")
    """`PROVIDER/NAME`: `openai`, `anthropic`, `gemini`, `vllm`, `local`, `fake` or a plugin's. Files: `local/FILE.gguf`,
    `local/hf:OWNER/REPO:FILE.gguf`, `fake/replay:FILE`."""
    base_url: str | None = None
    """The endpoint; for `openai/…` with `/v1`. Another URL is another run."""
    api_key_env: str = "OPENAI_API_KEY"
    """Variable with the key. Default for `anthropic/…`, `gemini/…`: ANTHROPIC_API_KEY, GEMINI_API_KEY."""
    max_concurrent: int = Field(16, ge=1, le=4096)
    """Calls at once, fewer while the teacher rejects some. Slots of the embedded teacher."""
    slot_tokens: int = Field(1536, ge=256)
    """`local/…`: tokens of prompt and reply per slot. A longer prompt is rejected."""
    gpu_layers: int | None = Field(None, ge=0)
    """`local/…`: layers on the GPU. Default: as many as fit."""
    threads: int | None = Field(None, ge=1)
    """`local/…`. Default: one per available processor."""
    draft: str | None = Field(None, min_length=1)
    """`local/…`, `vllm/…`: what proposes tokens: a student's folder, a `.gguf` file, `mtp` or `ngram`. Needs `logprobs =
    false`."""
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)
    """Of prompt and reply, which counts as `max_tokens` until it arrives."""
    input_price: float | None = Field(None, ge=0)
    """Of prompts. Default: 0 for `local/…`, `vllm/…`, `fake/…`, else the table of prices."""
    output_price: float | None = Field(None, ge=0)
    """Of replies."""
    cached_price: float | None = Field(None, ge=0)
    """Of cached prompts. Default: `input_price`."""
    cache_write_price: float | None = Field(None, ge=0)
    """Of prompts written to the cache. Default: `input_price`; for `anthropic/…` 1.25 times that."""
    reasoning_price: float | None = Field(None, ge=0)
    """Of thinking. Default: `output_price`."""
    timeout_seconds: float = Field(120.0, gt=0)
    """Of one call."""
    max_retries: int = Field(4, ge=0, le=20)
    """After no connection, a timeout, 408, 409, 425, 429 or 5xx."""
    outage_seconds: float = Field(120.0, ge=0)
    """Without any reply, before the run stops."""
    batch: bool = False
    """`openai/…`, `anthropic/…`: use the batch API: within 24 hours, at a lower price."""
    batch_size: int = Field(10_000, ge=1, le=100_000)
    """Requests per batch (OpenAI takes 50,000) and samples open at once."""
    structured: StructuredOutput = "json_schema"
    """`response_format`, a forced tool call, or the prompt. `validate --live` finds what works."""
    dialect: ChatDialect | None = None
    """`openai/…`: whose keys for thinking and length it accepts. Default: by host, else `generic`."""
    extra: dict[str, Any] = Field({})
    """Further keys of requests. For `fake/…`: the script's faults."""
    drop: tuple[str, ...] = ()
    """Keys to leave out, since the endpoint rejects them (`["temperature", "seed"]`)."""
    thinking: SchemaThinking = "native"
    """With `reasoning`: the server matches the schema, or the prompt asks for `<think>` and JSON."""
    logprobs: bool = True
    """Whether to request token probabilities, which some endpoints reject."""
    engine: dict[str, float | int | str | bool] = Field({})
    """`vllm/…`: options of `vllm serve`, with underscores (`max_model_len`, `dtype`, `tensor_parallel_size`)."""

    @model_validator(mode="before")
    @classmethod
    def _choose_key_variable(cls, table: Any) -> Any:
        provider = str(table.get("model", "")).partition("/")[0] if isinstance(table, dict) else ""
        if provider in KEY_OF_PROVIDER and "api_key_env" not in table:
            return {**table, "api_key_env": KEY_OF_PROVIDER[provider]}
        return table

    @field_validator("base_url")
    @classmethod
    def _normalize_base_url(cls, url: str | None) -> str | None:
        return None if url is None else normalize_base_url(url)

    @field_validator("api_key_env")
    @classmethod
    def _check_variable_name(cls, name: str) -> str:
        return validate_variable_name(name)

    @field_validator("extra")
    @classmethod
    def _check_extra(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if problem := _find_fixed_extra(extra):
            raise ValueError(problem)
        return extra

    @field_validator("drop")
    @classmethod
    def _check_drop(cls, drop: tuple[str, ...]) -> tuple[str, ...]:
        if problem := _find_fixed_drop(drop):
            raise ValueError(problem)
        return drop

    _folder: Path = PrivateAttr(Path())

    def in_folder(self, folder: Path) -> Self:
        """The same teacher in a recipe of this folder, from which the path of a GGUF file, a recording or a draft may start."""
        names_weights = self.model.startswith("local/") and self.model.endswith(".gguf")
        if not (names_weights or self.replays or self.has_draft_model):
            return self
        placed = self.model_copy()
        placed._folder = folder
        return placed

    def in_release(self, release: Path) -> Self:
        """The same teacher; if it is a promoted student, with its weights in the folder `release`."""
        if self.student_of is None:
            return self
        placed = self.model_copy()
        placed._folder = release.absolute()
        return placed

    @property
    def student_of(self) -> str | None:
        """The release whose promoted student it is, as RECIPE/GENERATION; None for any other teacher."""
        return find_student_release(self.model)

    def as_file(self) -> Self:
        """The same teacher; a promoted student by the path of its file, which needs no release."""
        return self.model_copy(update={"model": f"local/{self.weights_file}"}) if self.student_of else self

    @property
    def release_folder(self) -> Path | None:
        """The folder of the release that has the weights of a promoted student; None for any other teacher."""
        return self._folder if self.student_of else None

    @property
    def weights_file(self) -> Path:
        """The file of `local/FILE.gguf` or of a promoted student, which may be missing."""
        if self.student_of:
            return self._folder / PROMOTED_WEIGHTS
        return find_referenced_file(self.model.removeprefix("local/"), self._folder)

    @property
    def has_draft_model(self) -> bool:
        return self.draft is not None and self.draft not in MODELLESS_DRAFTS

    @property
    def draft_path(self) -> Path | None:
        """The file or folder of the draft, which may be missing; None if the draft is no model."""
        return find_referenced_file(self.draft, self._folder) if self.draft and self.has_draft_model else None

    @property
    def replays(self) -> bool:
        """Whether it answers from a recording."""
        return self.model.startswith(REPLAY_PREFIX)

    @property
    def recording_file(self) -> Path:
        """The file of `fake/replay:FILE`, which may be missing."""
        return find_referenced_file(self.model.removeprefix(REPLAY_PREFIX), self._folder)

    @model_validator(mode="after")
    def _check_dialect(self) -> Self:
        if self.dialect and not self.model.startswith("openai/"):
            raise ValueError(f"dialect is for openai/… only, not for {self.model}; remove it")
        return self

    @model_validator(mode="after")
    def _check_draft(self) -> Self:
        provider = self.model.partition("/")[0]
        if self.draft is None:
            return self
        if provider not in DRAFTING_PROVIDERS:
            raise ValueError(f"draft is for local/… and vllm/… only, not for {self.model}; remove it")
        if self.draft.startswith("hf:"):
            raise ValueError(
                f"draft = {self.draft!r}: a draft is not downloaded; name a student's folder, a file or ngram"
            )
        if provider == "vllm" and self.draft == MTP_DRAFT:
            raise ValueError(
                f"draft = {self.draft!r} is for local/… only, not for {self.model}; use engine.speculative_config"
            )
        if provider == "vllm" and self.draft.endswith(".gguf"):
            raise ValueError(
                f"draft = {self.draft!r}: vLLM drafts with a folder, not with a GGUF file; name the folder"
            )
        if "speculative_config" in {name.replace("-", "_") for name in self.engine}:
            raise ValueError("draft and engine.speculative_config are two drafts for one teacher; remove one of them")
        if self.logprobs:
            raise ValueError(
                "draft needs logprobs = false: llama.cpp returns no probability of a token that was proposed, and vLLM's are not "
                "tested; set it, or remove draft"
            )
        return self

    @property
    def chat_dialect(self) -> ChatDialect:
        """What the OpenAI-compatible endpoint of this teacher accepts."""
        provider = self.model.partition("/")[0]
        if self.dialect or provider != "openai":
            return self.dialect or DIALECT_OF_PROVIDER.get(provider, "generic")
        return _find_hosted_dialect(self.base_url or OPENAI_URL)

    @property
    def rejects_sampling(self) -> bool:
        """Whether the model is one of OpenAI's that reject temperature, top_p, seed and log probabilities."""
        name = self.model.partition("/")[2]
        return self.chat_dialect == "openai" and bool(OPENAI_REASONING_MODELS.match(name))

    @property
    def returns_logprobs(self) -> bool:
        """Whether token probabilities are requested. Anthropic's models have none, and Google's current ones reject it."""
        if self.replays:  # a recording has none
            return False
        return self.logprobs and not self.rejects_sampling and self.model.partition("/")[0] not in KEY_OF_PROVIDER

    def thinking_tokens(self, reasoning: ReasoningEffort | int | None) -> int:
        """The most tokens of thinking in a call with this setting, in addition to its answer's. Also counts what the model thinks
        without being asked, or although it was asked not to.
        """
        provider, _, name = self.model.partition("/")
        habit = find_thinking_habit(provider, name) if provider in URL_OF_PROVIDER else "asked"
        if reasoning is None and habit != "asked":
            return REASONING_BUDGETS["medium"]
        if reasoning == "off" and habit == "always":
            return REASONING_BUDGETS["low"]
        return reasoning_tokens(reasoning)

    @property
    def endpoint(self) -> str:
        """The base URL of the replies; "" for a server that the run starts itself, whose port is random."""
        provider = self.model.partition("/")[0]
        return "" if provider in OWN_PROVIDERS else self.base_url or URL_OF_PROVIDER.get(provider, "")

    @property
    def price_factor(self) -> float:
        """By which all prices are multiplied."""
        return 1 - BATCH_DISCOUNT if self.batch else 1.0

    def prices(self) -> TokenPrices | None:
        """Per million tokens, less the discount of batches; None if the price of prompts or replies is unknown."""
        provider = self.model.partition("/")[0]
        own = provider in OWN_PROVIDERS
        prompt, reply = (0.0 if price is None and own else price for price in (self.input_price, self.output_price))
        if prompt is None or reply is None:
            return None
        write = prompt * CACHE_WRITE_FACTORS.get(provider, 1.0)
        prices = TokenPrices(
            input=prompt,
            output=reply,
            cached=prompt if self.cached_price is None else self.cached_price,
            cache_write=write if self.cache_write_price is None else self.cache_write_price,
            reasoning=reply if self.reasoning_price is None else self.reasoning_price,
        )
        return prices.scale(self.price_factor)

    @property
    def has_price(self) -> bool:
        """Whether the recipe sets a price, or the teacher runs on the user's own machine."""
        return self.model.partition("/")[0] in OWN_PROVIDERS or any(
            getattr(self, key) is not None for key in PRICE_KEYS
        )


def find_student_release(model: str) -> str | None:
    """The release, as RECIPE/GENERATION, if a model is a promoted student."""
    return model.removeprefix(STUDENT_PREFIX) if model.startswith(STUDENT_PREFIX) else None


@lru_cache
def _find_hosted_dialect(url: str) -> ChatDialect:
    """Cached, since each call of a teacher needs it."""
    host = f".{urlsplit(url).hostname}"
    return next((dialect for domain, dialect in DIALECT_OF_DOMAIN.items() if host.endswith(f".{domain}")), "generic")


SETTING_OF_KEY = {
    **dict.fromkeys(
        ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_tokens_to_sample", "n_predict"),
        "agents.ROLE.max_tokens",
    ),
    **dict.fromkeys(("model", "models"), "the teacher's own `model`"),
    **dict.fromkeys(
        ("messages", "contents", "system", "system_instruction", "prompt", "input"), "the recipe's seeds and agents"
    ),
    **dict.fromkeys(("n", "n_cmpl", "candidate_count", "best_of", "use_beam_search"), "`samples`"),
    "stream": "nothing; a reply is read as a whole",
}  # fmt: skip
"""What a recipe sets instead, by the keys of all protocols and servers."""
TABLE_OF_KEYS = "generation_config"
"""Gemini's table, which has the length of a reply and the number of replies."""
SETTING_OF_PLAIN_KEY = {key.replace("_", ""): setting for key, setting in SETTING_OF_KEY.items()}


def _find_fixed_extra(extra: Mapping[str, Any]) -> str | None:
    """Why requests cannot have these keys, in a sentence; None if they can."""
    for key, value in extra.items():
        if _simplify(key) != _simplify(TABLE_OF_KEYS):
            continue
        if not isinstance(value, Mapping):
            return f"{key} must be a table, not {value!r}"
        if problem := _describe(f"{key}.{inner}" for inner in _list_fixed(value)):
            return problem
    return _describe(_list_fixed(extra))


def _find_fixed_drop(drop: Iterable[str]) -> str | None:
    """Why requests cannot be without these keys, in a sentence; None if they can."""
    keys = list(drop)
    if table := next((key for key in keys if _simplify(key) == _simplify(TABLE_OF_KEYS)), None):
        return (
            f"{table} has the length of a reply, which a budget depends on; name the keys in it, such as `temperature`"
        )
    return _describe(_list_fixed(keys))


def _simplify(key: str) -> str:
    """Google accepts its keys in two spellings."""
    return key.replace("_", "").lower()


def _list_fixed(keys: Iterable[str]) -> Iterator[str]:
    return (key for key in keys if _simplify(key) in SETTING_OF_PLAIN_KEY)


def _describe(keys: Iterable[str]) -> str | None:
    key = next(iter(keys), None)
    if key is None:
        return None
    setting = SETTING_OF_PLAIN_KEY[_simplify(key.rpartition(".")[2])]
    return f"{key} is fixed, since a budget depends on it; remove it, and set {setting} instead"


ThinkingHabit = Literal["asked", "default", "always"]
"""Whether a model thinks only if asked to, unless it is switched off, or always."""

OPENAI_REASONING_MODELS = re.compile(r"(?:ft:)?(?:o[1-9]|gpt-(?:[5-9]|[1-9]\d))(?!.*-chat)")
"""Models of api.openai.com that reject sampling parameters and log probabilities
(https://platform.openai.com/docs/guides/latest-model, "Parameter compatibility"); `gpt-5-chat-latest` accepts them."""
CLAUDE_NAME = re.compile(r"claude-(?:(\d)(?:-(\d))?-)?([a-z]+)(?:-(\d{1,2})(?:-(\d{1,2}))?)?(?!\d)")
"""`claude-opus-4-5-20251101`, `claude-sonnet-5`; before version 4 `claude-3-7-sonnet-20250219`."""
GEMINI_NAME = re.compile(r"gemini-(\d+)(?:\.(\d+))?-(pro|flash-lite|flash)")
OPEN_REASONING_MODELS = re.compile(r"deepseek-(?:reasoner|r1)|gpt-oss|qwq|.*[-:]thinking\b", re.IGNORECASE)
"""Open models that cannot answer without thinking."""
ALWAYS_THINKING_CLAUDE = ("fable", "mythos")


class ClaudeThinking(NamedTuple):
    """https://platform.claude.com/docs/en/build-with-claude/thinking, "Configuring thinking", and the migration guides."""

    habit: ThinkingHabit
    adaptive: bool
    """Takes `{"type": "adaptive"}` with an effort; else a budget in tokens. Since Claude 4.6."""
    off: str | None = None
    """The type of `thinking` that switches it off; None if it is off without the key, or cannot be switched off."""
    forced_tools: bool = True
    """Whether `tool_choice` may force a tool, if the model does not think."""


class GeminiThinking(NamedTuple):
    """https://ai.google.dev/gemini-api/docs/thinking."""

    habit: ThinkingHabit
    lowest: int | str
    """The smallest budget in tokens; the lowest level since Gemini 3, which has levels."""


GEMINI_2_5 = {
    "pro": GeminiThinking("always", 128),
    "flash": GeminiThinking("default", 0),
    "flash-lite": GeminiThinking("asked", 0),
}


def find_claude_thinking(model: str) -> ClaudeThinking:
    """How a model with the Messages API thinks; other vendors' models, which some gateways serve, take budgets."""
    name = CLAUDE_NAME.search(model)
    if not name:
        return ClaudeThinking("asked", adaptive=False, off="disabled")
    family = name[3]
    version = int(name[1] or name[4] or 99), int(name[2] or name[5] or 0)
    forced = version < (5, 1)
    if family in ALWAYS_THINKING_CLAUDE or (family == "opus" and version >= (5, 5)):
        return ClaudeThinking("always", adaptive=True, forced_tools=forced)
    if version < (5, 0):
        return ClaudeThinking("asked", adaptive=version >= (4, 6))
    off = "between_tools" if family == "sonnet" and version >= (5, 5) else "disabled"
    return ClaudeThinking("default", adaptive=True, off=off, forced_tools=forced)


def find_gemini_thinking(model: str) -> GeminiThinking | None:
    """How a Gemini model thinks; None if it cannot."""
    name = GEMINI_NAME.search(model)
    if not name:
        return None if "gemma" in model else GeminiThinking("always", "LOW")
    version = int(name[1]), int(name[2] or 0)
    if version < (2, 5):
        return None
    if version < (3, 0):
        return GEMINI_2_5[name[3]]
    # Gemini 3.8 Flash has no MINIMAL any more, and no Pro had it.
    return GeminiThinking("always", "MINIMAL" if name[3] != "pro" and version < (3, 8) else "LOW")


def find_thinking_habit(provider: str, model: str) -> ThinkingHabit:
    """Whether a model of `anthropic/…`, `gemini/…` or `openai/…` thinks without being asked. A gateway's name for it may have its
    vendor before a slash (`openai/gpt-5-mini`).
    """
    name = model.rpartition("/")[2]
    if provider == "anthropic" or name.startswith("claude-"):
        return find_claude_thinking(name.replace(".", "-")).habit
    if provider == "gemini" or name.startswith("gemini-"):
        thinking = find_gemini_thinking(name)
        return thinking.habit if thinking else "asked"
    return "always" if OPENAI_REASONING_MODELS.match(name) or OPEN_REASONING_MODELS.match(name) else "asked"
