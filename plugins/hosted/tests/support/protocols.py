"""The protocols of this plugin, for the tests over all protocols."""

from tests.support.protocols import TEXT, TestedProtocol

PROTOCOLS = {
    "anthropic": TestedProtocol(
        "anthropic/claude-opus-4-8",
        "/v1/messages",
        "",
        {
            "type": "message",
            "content": [{"type": "text", "text": TEXT}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 3, "output_tokens": 4},
        },
        lambda request: request.headers["Authorization"].removeprefix("Bearer "),
    ),
    "gemini": TestedProtocol(
        "gemini/gemini-2.5-flash-lite",
        "/v1beta/models/gemini-2.5-flash-lite:generateContent",
        "",
        {
            "candidates": [{"content": {"parts": [{"text": TEXT}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4},
        },
        lambda request: request.headers["x-goog-api-key"],
    ),
}
