"""Starlette's form handler on uvicorn with h11: reads the form and counts its bytes; validates and stores nothing."""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def upload(request: Request) -> JSONResponse:
    """Respond in the format of the upload's reference page."""
    received = 0
    async with request.form() as form:
        for file in form.getlist("files"):
            if isinstance(file, UploadFile):
                received += len(await file.read())
    return JSONResponse({"status": "success", "result": f"{received} bytes", "error": None})


app = Starlette(routes=[Route("/v1/report/junit/report/upload", upload, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[1]), http="h11", loop="asyncio", access_log=False, log_level="warning"
    )
