"""A hub on loopback: the routes that huggingface_hub uses, with repositories of the tests' own."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Its repositories' files and licences by name, and what was asked of it."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path, and Range of every download."""
    breaks: set[str] = field(default_factory=set)
    """Files whose first download breaks in the middle."""
    refuses: int = 0
    """The status with which it answers a push."""
    url: str = ""

    def app(self) -> Starlette:
        repo = "/api/{kind}/{owner}/{name}"
        return Starlette(
            routes=[
                Route("/api/whoami-v2", self.who),
                Route("/api/validate-yaml", self.valid, methods=["POST"]),
                Route("/api/repos/create", self.create, methods=["POST"]),
                Route(repo, self.info),
                Route(repo + "/revision/{revision}", self.info),
                Route(repo + "/tree/{revision}", self.tree),
                Route(repo + "/preupload/{revision}", self.preupload, methods=["POST"]),
                Route(repo + "/commit/{revision}", self.commit, methods=["POST"]),
                Route("/datasets/{owner}/{name}/resolve/{revision}/{path:path}", self.resolve),
            ]
        )

    def of(self, request: Request) -> dict[str, bytes] | None:
        at = request.path_params
        return self.files.get(f"{at['owner']}/{at['name']}")

    async def info(self, request: Request) -> Response:
        if self.of(request) is None:
            lost = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            return JSONResponse({"error": "Repository not found"}, 404, lost)
        name = "{owner}/{name}".format(**request.path_params)
        card = {"license": self.licences[name]} if name in self.licences else {}
        return JSONResponse({"id": name, "sha": COMMIT, "cardData": card, "siblings": []})

    async def tree(self, request: Request) -> Response:
        files = self.of(request) or {}
        return JSONResponse(
            [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in files.items()
            ]
        )  # fmt: skip

    async def resolve(self, request: Request) -> Response:
        path, begin = request.path_params["path"], 0
        data = (self.of(request) or {})[path]
        wanted = request.headers.get("range", "")
        if wanted:
            begin = int(wanted.removeprefix("bytes=").split("-")[0])
        if request.method == "GET":
            self.asked.append(("GET", path, wanted))
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
            "Content-Length": str(len(data) - begin),
        }
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        if request.method == "HEAD":
            return Response(headers=headers)
        if path in self.breaks:
            self.breaks.remove(path)

            async def half():
                yield data[: len(data) // 2]
                raise ConnectionError("the line broke")

            return StreamingResponse(half(), headers=headers)
        return Response(data[begin:], 206 if begin else 200, headers)

    # -- pushing -----------------------------------------------------------------------------------

    async def who(self, request: Request) -> Response:
        if self.refuses == 401:
            return JSONResponse({"error": "Invalid user token."}, 401)
        return JSONResponse({"name": "me", "type": "user", "auth": {}})

    async def valid(self, request: Request) -> Response:
        return JSONResponse({"errors": [], "warnings": []})

    async def create(self, request: Request) -> Response:
        if self.refuses:
            return JSONResponse({"error": "you may not"}, self.refuses)
        said = await request.json()
        name = f"{said.get('organization') or 'me'}/{said['name']}"
        self.files.setdefault(name, {})
        return JSONResponse({"url": f"{self.url}/{name}", "name": name})

    async def preupload(self, request: Request) -> Response:
        said = await request.json()
        files = [
            {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
            for one in said["files"]
        ]
        return JSONResponse({"files": files})

    async def commit(self, request: Request) -> Response:
        files = self.of(request)
        assert files is not None
        for line in (await request.body()).splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        name = "{owner}/{name}".format(**request.path_params)
        url = f"{self.url}/{name}/commit/{COMMIT}"
        return JSONResponse({"success": True, "commitUrl": url, "commitOid": COMMIT})


@contextmanager
def serving(cache: Path) -> Iterator[Hub]:
    """A hub that huggingface_hub asks in this process; its downloads are kept in `cache`."""
    from huggingface_hub import constants

    hub = Hub()
    config = uvicorn.Config(hub.app(), port=0, ws="none", log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    (at,) = server.servers[0].sockets
    hub.url = f"http://127.0.0.1:{at.getsockname()[1]}"
    try:
        with pytest.MonkeyPatch.context() as patch:
            template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
            patch.setattr(constants, "ENDPOINT", hub.url)
            patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            patch.setattr(constants, "HF_HUB_CACHE", str(cache))
            patch.setattr(constants, "HF_HUB_OFFLINE", False)
            patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
            patch.setenv("HF_TOKEN", "hf_of_a_test")
            yield hub
    finally:
        server.should_exit = True
        thread.join()


# -- what its repositories hold --------------------------------------------------------------------


def files_below(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def tarred(files: dict[str, bytes], kind: str = "gz", *links: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{kind}") as archive:  # type: ignore[call-overload]
        for link in links:
            archive.addfile(link)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def below(files: dict[str, bytes], start: str, to: str = "") -> dict[str, bytes]:
    """The files of a folder, under another name."""
    chosen = {name: data for name, data in files.items() if name.startswith(start)}
    return {to + name.removeprefix(start): data for name, data in chosen.items()}
