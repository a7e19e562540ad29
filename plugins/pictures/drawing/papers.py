"""A table or document as the input of the Typst template, built from a draft and a style. Texts are data of the template and
never part of its source. Renders nothing.
"""

import json
from pathlib import Path
from typing import Any

from plugins.pictures.drawing.drafts import PictureDraft
from plugins.pictures.drawing.queries import Cell, count_decimals, to_decimal
from plugins.pictures.drawing.styles import PictureStyle

TEMPLATE = Path(__file__).parent / "templates" / "paper.typ"


def build_paper_data(draft: PictureDraft, style: PictureStyle) -> str:
    """The data of the template, as JSON."""
    table = draft.table
    decimals = [count_decimals(table.numbers(name)) for name in table.columns[1:]]

    def write(cell: Cell, places: int) -> str:
        return f"{to_decimal(cell):{style.separator}.{places}f}"

    data: dict[str, Any] = {
        "title": draft.title,
        "columns": list(table.columns),
        "rows": [[str(row[0]), *map(write, row[1:], decimals)] for row in table.rows],
        "fields": [field.model_dump() for field in draft.fields],
        "totals": [field.model_dump() for field in draft.totals],
        "paragraph": draft.paragraph,
        "note": draft.note,
        "paper": style.paper,
        "template": draft.template or "",
        "theme": style.theme,
        "font": style.font,
        "size": style.font_size,
        "wide": style.wide,
    }
    return json.dumps(data, ensure_ascii=False)
