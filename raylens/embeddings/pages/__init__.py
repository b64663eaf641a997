"""HTML pages of one file each: no other file and no request, also when opened from the disk.

Templates stand beside this module. What varies is JSON in a script element that no browser runs,
and the page's own script puts it in place as text: no name of a file can become markup.
"""

import json
import re
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, Literal


def page(name: Literal["gallery", "map"], title: str, data: dict[str, Any]) -> str:
    """The page with its title, styles, script and data. It is ASCII."""
    parts = {
        "title": escape(title).encode("ascii", "xmlcharrefreplace").decode(),
        "style": _template("page.css"),
        "script": _template(f"{name}.js"),
        "data": _json({"title": title, **data}),
    }
    # In one pass, so that what looks like a placeholder in the data stays as it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _template(f"{name}.html"))


def link(source: str) -> str | None:
    """Where a browser finds it; None for what is neither a web address nor an absolute path."""
    if source.lower().startswith(("http://", "https://")):
        return source
    path = Path(source)
    return path.as_uri() if path.is_absolute() else None


def _json(data: dict[str, Any]) -> str:
    """JSON for a script element, which ends at `</script` and changes its rules at `<!--`."""
    text = json.dumps(data, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _template(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
