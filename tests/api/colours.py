"""Images of one colour, for fake models that also read the names of colours."""

import base64
import io
from typing import Any

from PIL import Image

from tests.api.conftest import Connect
from tests.fakes import TEXT, FakeModel


def image(colour: str) -> dict[str, str]:
    """A PNG of one colour as an item."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "PNG")
    return {"base64": base64.b64encode(buffer.getvalue()).decode()}


async def post(connect: Connect, path: str, body: dict[str, Any], *models: FakeModel) -> Any:
    async with connect(*(models or (FakeModel(text=TEXT),))) as client:
        return (await client.post(f"/v1/{path}", json=body)).json()
