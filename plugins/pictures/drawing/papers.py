"""A table or document as the input of the Typst template, built from a draft and a style. Texts are data of the template and
never part of its source. Renders nothing.
"""

import json
from pathlib import Path
from typing import Any

from plugins.pictures.drawing.drafts import PictureDraft
from plugins.pictures.drawing.queries import format_decimal, to_decimal
from plugins.pictures.drawing.styles import PictureStyle

TEMPLATE = Path(__file__).parent / "templates" / "paper.typ"


def build_paper_data(draft: PictureDraft, style: PictureStyle) -> str:
    """The data of the template, as JSON."""
    table = draft.table
    data: dict[str, Any] = {
        "title": draft.title,
        "columns": list(table.columns),
        "rows": [[str(row[0]), *(format_decimal(to_decimal(cell)) for cell in row[1:])] for row in table.rows],
        "fields": [field.model_dump() for field in draft.fields],
        "paragraph": draft.paragraph,
        "template": draft.template or "",
        "theme": style.theme,
        "font": style.font,
        "size": style.font_size,
        "wide": style.wide,
    }
    return json.dumps(data, ensure_ascii=False)
