"""A GGUF file whose chat template thinks: SmolLM2-135M with another template. Its thoughts are real text, but of little sense."""

from pathlib import Path

from core.weights.packaged_weights import find_embedded_teacher

THINKING_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' and message.reasoning_content %}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
{%- endif %}
{{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- else %}
{{- '<think>\\n' }}
{%- endif %}
{%- endif %}"""
"""As in Qwen3: the template opens the thinking, or writes an empty thought if it is switched off."""


def write_thinking_model(path: Path) -> None:
    from gguf import GGUFReader, GGUFWriter, Keys
    from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata, get_field_data

    source = find_embedded_teacher()
    assert source, "the packaged weights are installed"
    reader = GGUFReader(source)
    writer = GGUFWriter(path, get_field_data(reader, Keys.General.ARCHITECTURE))
    from gguf import GGUFValueType

    template = MetadataDetails(GGUFValueType.STRING, THINKING_TEMPLATE)
    copy_with_new_metadata(reader, writer, {Keys.Tokenizer.CHAT_TEMPLATE: template}, [])
