"""A service's `server.py` hosted as it is: found, told of its port, and never run itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import live

SERVER = """
import argparse
import json
import os
import sys

import uvicorn
from fastapi import FastAPI
from uvicorn.loops.auto import auto_loop_setup

from linker_atom.api.app import get_app
from linker_atom.api.base import UdfAPIRoute
from linker_atom.config import settings

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, default=8000)
arguments = parser.parse_args()
auto_loop_setup(True)

app: FastAPI = get_app()
router = UdfAPIRoute()
models = []


@router.post("/process")
def process(body: dict) -> dict:
    return {"code": 0, "data": body, "models": models}


@router.get("/about")
def about() -> dict:
    return {
        "argv": sys.argv[1:],
        "port": arguments.port,
        "name": __name__,
        "file": __file__,
        "here": os.getcwd(),
        "first": sys.path[0],
        "workers": os.environ["ATOM_WORKERS"],
    }


@app.on_event("startup")
async def load() -> None:
    models.extend(settings.model_id_list)


app.include_router(router, prefix=settings.atom_api_prefix)

if __name__ == "__main__":
    uvicorn.run(app, port=arguments.port)
"""

ENVIRONMENT = """
import json
import os

os.environ["ATOM_API_PREFIX"] = "/atom"
os.environ["META"] = json.dumps({"servingHost": "", "modelIds": "one,two"})
"""

# What is used here of the compatibility modules, for a checkout that has none of its own.
SHIM = {
    "__init__.py": "",
    "api/__init__.py": "",
    "api/app.py": "from fastapi import FastAPI as get_app\n",
    "api/base.py": "from fastapi import APIRouter as UdfAPIRoute\n",
    "config.py": """
import json
import os


class settings:
    atom_api_prefix = os.environ.get("ATOM_API_PREFIX", "")
    model_id_list = json.loads(os.environ["META"])["modelIds"].split(",")
""",
}


def service(folder: Path, text: str) -> Path:
    for name, content in SHIM.items():
        path = folder / "service" / "linker_atom" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / "service" / "server.py").write_text(text)
    return folder


def test_a_server_py_runs_unmodified(tmp_path: Path) -> None:
    folder = service(tmp_path, ENVIRONMENT + SERVER)
    plugins = ("--plugins", "linker:service/server.py", "--api-processes", "2")
    with live.live(folder, *plugins) as server:
        advice = "Only this machine reaches 127.0.0.1; linker_atom listened on all addresses"
        server.await_line(lambda line: line.startswith(advice))
        told = server.await_record("app.described")
        assert (told["prefix"], told["meta"]) == ("/atom", True)
        assert len(server.records("app.described")) == 1
        with server.client() as client:
            answer = client.post("/atom/process", json={"image": "x"})
            assert answer.json() == {"code": 0, "data": {"image": "x"}, "models": ["one", "two"]}
            about = client.get("/atom/about").json()
            assert client.get("/docs").status_code == 200
            assert client.get("/readyz?verbose").text.startswith("[+] app app: ready\n")
        assert about == {
            "argv": ["--port", str(server.port)],
            "port": server.port,
            "name": "server",
            "file": str(folder / "service" / "server.py"),
            "here": str(folder),
            "first": str(folder / "service"),
            "workers": "2",
        }


LOADING = """
import json
import sys

from atomserve.errors import AtomError
from atomserve.hosting.foreign import load_app
from atomserve.plugins import resolve
from atomserve.settings import Settings

found = []
for path in sys.argv[1:]:
    settings = Settings(plugins=(f"linker:{path}",), prefix="/told", port=8123)
    (source,) = resolve(settings, [])
    try:
        foreign = load_app(source, settings)
        found.append([foreign.app.title, foreign.told.prefix, foreign.told.meta])
    except AtomError as exc:
        found.append(f"{type(exc).__name__}: {exc}")
print(json.dumps(found))
"""


def loaded(*files: Path, before: str = "") -> list[list[str] | str]:
    """Load ``files`` in a process of their own, which is theirs from then on."""
    done = subprocess.run(
        [sys.executable, "-c", before + LOADING, *map(str, files)],
        env=live.environment() | {"META": "{}"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[list[str] | str] = json.loads(done.stdout.splitlines()[-1])
    return found


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_only_application_is_taken_and_uvicorn_at_the_top_level_is_not_run(
    tmp_path: Path,
) -> None:
    file = written(
        tmp_path / "server.py",
        "import uvicorn\nfrom fastapi import FastAPI\n"
        "service = again = FastAPI(title='the one')\n"
        "uvicorn.run(service)\n",
    )
    assert loaded(file) == [["the one", "/told", "{}"]]


WRONG = {
    "two": (
        "from fastapi import FastAPI\nadmin = FastAPI()\npublic = FastAPI()",
        "expected a FastAPI application called app at the top level of the file, found admin and "
        "public",
    ),
    "hidden": (
        "if __name__ == '__main__':\n    from fastapi import FastAPI\n    app = FastAPI()",
        "expected a FastAPI application called app at the top level of the file, found none",
    ),
    "broken": (
        "1 / 0",
        "cannot be imported: ZeroDivisionError: division by zero (broken.py, line 1)",
    ),
    "long": (
        "import os\nfrom fastapi import FastAPI\napp = FastAPI()\n"
        "os.environ['META'] = 'x' * 200_000",
        "META has over 131072 characters",
    ),
}


def test_what_cannot_be_hosted_is_one_line(tmp_path: Path) -> None:
    files = {name: written(tmp_path / f"{name}.py", text) for name, (text, _) in WRONG.items()}
    for file, told in zip(files.values(), loaded(*files.values()), strict=True):
        assert told == f"PluginError: linker:{file}: {WRONG[file.stem][1]}"


def test_without_fastapi_one_line_names_the_extra(tmp_path: Path) -> None:
    file = written(tmp_path / "server.py", "app = None")
    (told,) = loaded(file, before="import sys; sys.modules['fastapi'] = None")
    assert told == (f"MissingExtra: linker:{file}: needs FastAPI: pip install 'atomserve[linker]'")


def test_the_modules_of_linker_atom_are_those_of_the_shim(tmp_path: Path) -> None:
    shim = tmp_path / "shim" / "top" / "inner"
    shim.mkdir(parents=True)
    (shim.parent.parent / "__init__.py").touch()
    (shim.parent / "__init__.py").write_text("import shim.top.inner\n")
    (shim / "__init__.py").write_text("value = object()\n")
    code = (
        "import sys\n"
        "from atomserve.compat.finder import ShimFinder\n"
        "sys.meta_path.insert(0, ShimFinder('shim', ['top']))\n"
        "import top.inner, shim.top.inner\n"
        "assert top.inner is shim.top.inner\n"
        "try:\n"
        "    import top.nothing\n"
        "except ModuleNotFoundError as exc:\n"
        "    assert exc.name == 'top.nothing'\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{live.ROOT}{os.pathsep}{tmp_path}"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
