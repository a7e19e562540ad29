"""The `[teachers]` tables of a recipe: how to reach each model, its limits and its prices."""

from typing import Any, Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from core.addresses import normalize_base_url
from core.config.base import RecipeTable
from core.prices import TokenPrices
from core.secrets import validate_variable_name

OWN_PROVIDERS = {"local", "vllm", "fake"}
"""Providers that run on the user's own machine, where a call costs nothing."""
OPENAI_URL = "https://api.openai.com/v1"
PRICE_KEYS = ("input_price", "output_price", "cached_price", "cache_write_price", "reasoning_price")
"""In the order of `TokenPrices`."""
CACHE_WRITE_FACTORS = {"anthropic": 1.25}
"""The price of storing a prompt for five minutes, in prices of a prompt, by provider; 1 where storing costs nothing extra."""
CONNECTION_KEYS = {
    *PRICE_KEYS,
    "api_key_env", "max_concurrent", "requests_per_minute", "tokens_per_minute", "timeout_seconds",
    "max_retries", "outage_seconds",
}  # fmt: skip
"""Keys that affect connection and cost of a teacher, not its replies. `base_url` is not included: another endpoint may serve
another model under the same name."""


class TeacherFaults(RecipeTable):
    """Faults of a fake teacher, as shares of its replies."""

    malformed: float = Field(0.0, ge=0, le=1)
    """Replies cut in the middle, which fail their schema."""
    refusal: float = Field(0.0, ge=0, le=1)
    repetition: float = Field(0.0, ge=0, le=1)
    unavailable: float = Field(0.0, ge=0, le=1)
    """Calls that fail on every try."""
    seconds: float = Field(0.0, ge=0)
    """Duration of each reply."""
    contradiction: float = Field(0.0, ge=0, le=1)
    """For `fake/faulty` in every role: the parts of a reply contradict each other. A reply has at most one of these four
    faults."""
    drift: float = Field(0.0, ge=0, le=1)
    """A number differs from the input, or from an earlier number of the reply."""
    omission: float = Field(0.0, ge=0, le=1)
    """A required number, step or finding is missing."""
    miscoordination: float = Field(0.0, ge=0, le=1)
    """The reply answers another message."""

    @model_validator(mode="after")
    def _check_rates(self) -> Self:
        if (total := self.contradiction + self.drift + self.omission + self.miscoordination) > 1 + 1e-9:
            raise ValueError(
                f"contradiction, drift, omission and miscoordination add up to {total:g}; a reply has one of them at "
                "most, so lower their sum to 1"
            )
        return self


StructuredOutput = Literal["json_schema", "tool", "plain"]


class TeacherConfig(RecipeTable):
    model: str = Field(pattern=r"^[a-z][a-z0-9_-]*/.+")
    """`provider/model`: `openai/NAME` with a base_url, `vllm/NAME`, `local/smollm2-135m`, `local/FILE.gguf`, `fake/writer`, or
    the protocol of an installed package."""
    base_url: str | None = None
    """The endpoint's URL, including `/v1`; the default of `openai/…` is api.openai.com. Part of the run's identity: endpoints
    never share cached replies. A user name or password in it is rejected."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable with the API key. A recipe never contains a key."""
    max_concurrent: int = Field(16, ge=1, le=4096)
    """Maximum concurrent calls; fewer while the teacher rejects or drops calls. Slots of the embedded teacher."""
    slot_tokens: int = Field(1536, ge=256)
    """For `local/…` only: tokens of prompt and reply per slot. A longer prompt is rejected."""
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)
    """Of prompt and reply; a reply counts as `max_tokens` until it arrives."""
    input_price: float | None = Field(None, ge=0)
    """Per million prompt tokens, in the budget's currency. Default: 0 for `local/…`, `vllm/…` and `fake/…`; for others, if no
    price is set, those of the table of prices (docs/costs.md)."""
    output_price: float | None = Field(None, ge=0)
    """Per million reply tokens."""
    cached_price: float | None = Field(None, ge=0)
    """Per million prompt tokens that the teacher reads from its prompt cache. Default: `input_price`."""
    cache_write_price: float | None = Field(None, ge=0)
    """Per million prompt tokens that the teacher stores in its prompt cache. Default: `input_price`; for `anthropic/…`, 1.25
    times that."""
    reasoning_price: float | None = Field(None, ge=0)
    """Per million tokens of thinking. Default: `output_price`."""
    timeout_seconds: float = Field(120.0, gt=0)
    """For one call, without the wait for a free slot."""
    max_retries: int = Field(4, ge=0, le=20)
    """Retries after transient failures: no connection, a timeout, 408, 409, 425, 429 and 5xx. During an outage, when no call
    gets a reply, tries are not counted."""
    outage_seconds: float = Field(120.0, ge=0)
    """Seconds without any reply before the run stops. Resume it with --resume. For built-in providers only: a protocol of a
    package fails a sample after `max_retries`."""
    structured: StructuredOutput = "json_schema"
    """How a reply is made to match its schema: by `response_format`, by a forced tool call, or by instructions in the prompt
    and the first JSON object of the reply. `validate --live` prints what an endpoint supports."""
    extra: dict[str, Any] = Field({}, validation_alias=AliasChoices("extra", "sampling"))
    """Additional keys of the request, as the server names them (`top_k`, `min_p`, `provider = { order = ["a"] }`); tables may be
    nested. A key that the request already has is replaced, a table is merged. Earlier versions called it `sampling`."""
    drop: tuple[str, ...] = ()
    """Keys that requests must not have, since the endpoint rejects them (`["temperature", "top_p"]`)."""
    seeded: bool = True
    """Whether requests have a seed; some endpoints reject it."""
    logprobs: bool = True
    """Whether token probabilities are requested; some endpoints reject that."""
    engine: dict[str, float | int | str | bool] = Field({})
    """For `vllm/…` only: options of `vllm serve`, with underscores (`max_model_len`, `dtype`, `tensor_parallel_size`)."""
    faults: TeacherFaults | None = None
    """For `fake/…` only."""

    @field_validator("base_url")
    @classmethod
    def _normalize_base_url(cls, url: str | None) -> str | None:
        return None if url is None else normalize_base_url(url)

    @field_validator("api_key_env")
    @classmethod
    def _check_variable_name(cls, name: str) -> str:
        return validate_variable_name(name)

    @property
    def endpoint(self) -> str:
        """The base URL of the replies; "" for a server that the run starts itself, whose port is random."""
        provider = self.model.partition("/")[0]
        return "" if provider in OWN_PROVIDERS else self.base_url or (OPENAI_URL if provider == "openai" else "")

    def prices(self) -> TokenPrices | None:
        """Per million tokens; None if the price of prompts or replies is unknown."""
        provider = self.model.partition("/")[0]
        own = provider in OWN_PROVIDERS
        prompt, reply = (0.0 if price is None and own else price for price in (self.input_price, self.output_price))
        if prompt is None or reply is None:
            return None
        write = prompt * CACHE_WRITE_FACTORS.get(provider, 1.0)
        return TokenPrices(
            input=prompt,
            output=reply,
            cached=prompt if self.cached_price is None else self.cached_price,
            cache_write=write if self.cache_write_price is None else self.cache_write_price,
            reasoning=reply if self.reasoning_price is None else self.reasoning_price,
        )

    @property
    def has_price(self) -> bool:
        """Whether the recipe sets a price, or the teacher runs on the user's own machine."""
        return self.model.partition("/")[0] in OWN_PROVIDERS or any(
            getattr(self, key) is not None for key in PRICE_KEYS
        )
