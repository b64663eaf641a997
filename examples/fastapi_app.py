"""A web application that says which of its photos is most like the one that a visitor uploads.

pip install raylens fastapi uvicorn python-multipart
PHOTOS=photos uvicorn --app-dir examples fastapi_app:app --port 8080
curl -F photo=@cat.jpg http://127.0.0.1:8080/nearest
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException, UploadFile

import raylens


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    photos = sorted(Path(os.environ["PHOTOS"]).glob("*.jpg"))
    async with raylens.AsyncClient() as client:
        app.state.client = client
        app.state.names = [path.name for path in photos]
        app.state.vectors = await client.embed(photos)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/nearest")
async def nearest(photo: UploadFile) -> dict[str, str | float]:
    try:
        vector = await app.state.client.embed_image(await photo.read())
    except raylens.ApiError as error:
        raise HTTPException(error.status or 502, error.message) from None
    cosines = app.state.vectors @ vector
    best = int(cosines.argmax())
    return {"name": app.state.names[best], "cosine": float(cosines[best])}
