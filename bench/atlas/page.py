"""Puts an atlas into its page: one HTML file with the data inside and nothing external."""

import json
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("page.html")
PLACE = "/* atlas */ null"


def render(atlas: dict[str, Any]) -> str:
    """The page as text. The data is escaped so that no token can end the script element it stands in."""
    data = json.dumps(atlas, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return TEMPLATE.read_text(encoding="utf-8").replace(PLACE, data)
