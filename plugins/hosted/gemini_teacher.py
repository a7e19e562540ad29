"""A model behind Gemini's generateContent protocol as a teacher: sends by Google's client library. Builds and reads nothing."""

import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import aiohttp

from core.config.teachers import TeacherConfig
from core.secrets import redact_text
from plugins.hosted.gemini_content import build_gemini_request, parse_gemini_response
from plugins.hosted.hosted_teacher import HostedProtocol, HostedTeacher, RejectedRequest, require_key
from teachers.endpoint import read_response_text, translate_client_errors
from teachers.endpoint_calls import MAX_SHOWN_CHARACTERS, FailedTry, FailureCause

if TYPE_CHECKING:
    from google import genai

API_VERSION = "v1beta"
ENDPOINT_KEYS = {"model", "contents", "generationConfig"}
RETRY_DELAY = re.compile(r'"retryDelay": ?"([\d.]+)s"')
"""How long to wait after too many requests: Google says it in the body."""
WRONG_KEY = "API_KEY_INVALID"
"""Google's reason in an answer with status 400 for a key that it does not know."""


class _BoundedResponse(aiohttp.ClientResponse):
    async def text(self, encoding: str | None = None, errors: str = "replace") -> str:
        """Raises InvalidCompletion if it is too long. Invalid bytes are replaced."""
        try:
            return await read_response_text(self)
        except BaseException:  # a connection that stays open would take the place of another call
            self.close()
            raise


@asynccontextmanager
async def open_gemini_teacher(config: TeacherConfig) -> AsyncIterator[HostedTeacher]:
    """Raises ProviderError if there is no key."""
    from google import genai
    from google.genai.client import DebugConfig

    key = require_key(config)
    connector = aiohttp.TCPConnector(limit=config.max_concurrent)
    async with aiohttp.ClientSession(
        connector=connector, raise_for_status=_reject_status, response_class=_BoundedResponse
    ) as session:
        options: Any = {
            "base_url": config.endpoint.removesuffix(f"/{API_VERSION}"),
            "api_version": API_VERSION,
            "aiohttp_client": session,
            # It would send the key along to where a redirect leads.
            "async_client_args": {"allow_redirects": False},
            # Without this, it sends a request again after a broken connection.
            "retry_options": {"attempts": 1},
        }
        # Else GOOGLE_GENAI_CLIENT_MODE replaces the endpoint by a folder of recorded replies.
        sends = DebugConfig(client_mode=None, replays_directory=None, replay_id=None)
        client = genai.Client(api_key=key, vertexai=False, http_options=options, debug_config=sends)
        protocol = HostedProtocol(
            build_gemini_request, parse_gemini_response, partial(_generate_content, client, config.timeout_seconds)
        )
        yield HostedTeacher(config, protocol)


@cache
def _config_keys() -> frozenset[str]:
    """The keys of a request that the library has a setting for, in the protocol's spelling."""
    from google.genai import types

    fields = types.GenerateContentConfig.model_fields
    return frozenset(field.alias or name for name, field in fields.items()) - {"httpOptions"}


async def _generate_content(client: "genai.Client", seconds: float, request: dict[str, Any]) -> str:
    generation: dict[str, Any] = request.get("generationConfig", {})
    settings = {**generation, **{key: value for key, value in request.items() if key not in ENDPOINT_KEYS}}
    config: Any = {key: value for key, value in settings.items() if key in _config_keys()}
    others = {key: value for key, value in request.items() if key not in {*config, *ENDPOINT_KEYS}}
    if unknown := {key: value for key, value in generation.items() if key not in config}:
        others["generationConfig"] = unknown
    if others:
        config["httpOptions"] = {"extraBody": others}
    # A continuation and a call of a function would be requests by the library itself, which no budget counts.
    config |= {"automaticContinuation": False, "automaticFunctionCalling": {"disable": True}}
    config["shouldReturnHttpResponse"] = True
    try:
        contents: Any = _decode_images(request["contents"])
        with translate_client_errors(seconds):
            response = await client.aio.models.generate_content(
                model=request["model"], contents=contents, config=config
            )
    except ValueError as error:  # a request that the library rejects
        raise FailedTry(
            redact_text(f"{type(error).__name__}: {error}")[:MAX_SHOWN_CHARACTERS], FailureCause.request
        ) from None
    body = response.sdk_http_response.body if response.sdk_http_response else None
    return body or ""


def _decode_images(contents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Images as bytes, which the library encodes itself."""

    def decode(part: dict[str, Any]) -> dict[str, Any]:
        if "inlineData" not in part:
            return part
        image = part["inlineData"]
        return {"inlineData": {**image, "data": base64.b64decode(image["data"])}}

    return [{**content, "parts": [decode(part) for part in content["parts"]]} for content in contents]


async def _reject_status(response: aiohttp.ClientResponse) -> None:
    """Raise RejectedRequest for another status than 200, before the library reads the body, which may not be JSON."""
    if response.status == 200:
        return
    text = await response.text()
    headers = response.headers.copy()
    if delay := RETRY_DELAY.search(text):
        headers.setdefault("Retry-After", delay[1])
    raise RejectedRequest(401 if response.status == 400 and WRONG_KEY in text else response.status, headers, text)
