"""The registry: what is installed, what a spec means, and how an import fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atomserve.errors import PluginError
from atomserve.loading import load_class, probe, served_name
from atomserve.plugins import Source, by_name, check_tables, installed, resolve
from atomserve.settings import ModelSettings, Settings


class Site:
    """A folder on the search path that distributions are installed into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution: str, version: str, **entry_points: str) -> None:
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        lines = [
            f"{name.replace('__', ' ').replace('_', '-')} = {value}"
            for name, value in entry_points.items()
        ]
        (info / "entry_points.txt").write_text("[atomserve.plugins]\n" + "\n".join(lines))

    def write(self, module: str, text: str) -> Path:
        path = self.folder / f"{module}.py"
        path.write_text(text)
        return path

    @property
    def base(self) -> type:
        base: type = __import__("site_base").Base
        return base


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A search path and modules of its own, both put back at the end."""
    path = list(sys.path)
    site = Site(tmp_path)
    site.write("site_base", "class Base: ...\n")
    sys.path.insert(0, str(tmp_path))
    yield site
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def ask(*plugins: str, loaders: tuple[str, ...] = (), **models: ModelSettings) -> list[Source]:
    return resolve(Settings(plugins=plugins, models=models), installed(), loaders)


def refusal(*plugins: str, **models: ModelSettings) -> str:
    with pytest.raises(PluginError) as caught:
        resolve(Settings(plugins=plugins, models=models), installed())
    return one_line(caught.value)


def failure(site: Site, spec: str) -> str:
    (source,) = ask(spec)
    with pytest.raises(PluginError) as caught:
        load_class(source, base=site.base)
    return one_line(caught.value)


def one_line(error: PluginError) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_listing_names_each_distribution_and_imports_nothing(site: Site) -> None:
    site.install("atomserve-ocr", "1.2", ocr="site_ocr:Ocr", fast_ocr="site_ocr:Fast")
    site.write("site_ocr", "raise RuntimeError('imported')")
    before = set(sys.modules)
    rows = [row for row in installed() if row.value.startswith("site_ocr")]
    ask("ocr", "fast-ocr", "x=site_ocr:Ocr")
    assert set(sys.modules) == before
    assert [(row.name, str(row)) for row in rows] == [
        ("fast-ocr", "atomserve-ocr 1.2"),
        ("ocr", "atomserve-ocr 1.2"),
    ]


def test_two_distributions_with_one_name_mark_each_other(site: Site) -> None:
    site.install("one", "1.0", seen="site_one:Ocr")
    site.install("two", "2.0", seen="site_two:Ocr", other="site_two:Other")
    rows = {row.value: row.rivals for row in installed() if row.value.startswith("site_")}
    assert rows == {
        "site_one:Ocr": ("two 2.0",),
        "site_two:Ocr": ("one 1.0",),
        "site_two:Other": (),
    }
    message = refusal("seen")
    assert "one 1.0" in message
    assert "two 2.0" in message
    assert "seen=site_one:Ocr" in message
    assert ask("other")[0].distribution == "two"


def test_each_kind_of_spec_is_told_apart(site: Site) -> None:
    site.install("atomserve-ocr", "1.2", my_ocr="pack.age:Ocr [gpu]")
    file = site.write("wrapper", "")
    sources = ask(f"my-ocr,b=my-ocr, {file}", f"c={file}:Ocr", "pack.age:Ocr.Inner", "d=a:B")
    assert [(s.name, s.kind, s.target, s.attribute, s.spec) for s in sources] == [
        ("my-ocr", "installed", "pack.age", "Ocr", "my-ocr"),
        ("b", "installed", "pack.age", "Ocr", "b=my-ocr"),
        (None, "file", str(file), "", str(file)),
        ("c", "file", str(file), "Ocr", f"c={file}:Ocr"),
        (None, "class", "pack.age", "Ocr.Inner", "pack.age:Ocr.Inner"),
        ("d", "class", "a", "B", "d=a:B"),
    ]
    assert str(sources[0]) == "my-ocr (atomserve-ocr 1.2)"


def test_a_known_loader_wins(site: Site) -> None:
    file = site.write("wrapper", "")
    spec = f"x=aiges:{file}"
    (source,) = ask(spec, loaders=("aiges",))
    assert (source.name, source.kind, source.target) == ("x", "loader", f"aiges:{file}")
    (plain,) = ask("aiges:Wrapper")
    assert plain.kind == "class"


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("orc", ['no plugin "orc"', 'did you mean "ocr"?', "installed: "]),
        ("./absent.py", ["./absent.py: there is no file /"]),
        ("aiges:./wrapper.xyz", ["expected an installed plugin's name", 'no loader "aiges"']),
        ("a/b", ["path/to/file.py[:Class]"]),
        ("-x=ocr", ['"-x" is no name for a model']),
        ("a=b=ocr", ["NAME= stands only once"]),
        ("a=", ["a=: expected"]),
        ("broken", ['"broken" of atomserve-ocr 1.2 is "no_class"', "package.module:Class"]),
        ("sp ace", ['"sp ace" is no name']),
    ],
)
def test_a_wrong_spec_is_one_line_with_the_fix(site: Site, spec: str, parts: list[str]) -> None:
    site.install("atomserve-ocr", "1.2", ocr="m:C", broken="no_class", sp__ace="m:C")
    message = refusal(spec)
    assert message.startswith(f"{spec}: ")
    assert all(part in message for part in parts), message


def test_nothing_asked_for_says_what_to_do(site: Site) -> None:
    site.install("atomserve-ocr", "1.2", ocr="m:C")
    message = refusal()
    assert "--plugins" in message
    assert "ocr" in message.partition("installed: ")[2]


def test_one_plugin_is_served_under_several_names(site: Site) -> None:
    site.install("atomserve-ocr", "1.2", ocr="m:C")
    sources = ask("ocr", fast=ModelSettings(plugin="ocr"), slow=ModelSettings(plugin="m:C"))
    assert [(s.name, s.kind) for s in sources] == [
        ("ocr", "installed"),
        ("fast", "installed"),
        ("slow", "class"),
    ]


def test_a_table_configures_the_model_of_its_name(site: Site) -> None:
    site.install("atomserve-ocr", "1.2", ocr="m:C")
    assert [s.spec for s in ask("ocr", ocr=ModelSettings(slots=2))] == ["ocr"]
    assert [s.spec for s in ask("x=m:C", x=ModelSettings(slots=2))] == ["x=m:C"]


def test_a_table_may_be_a_plugin_by_its_own_name(site: Site) -> None:
    site.install("atomserve-ocr", "1.2", ocr="m:C")
    assert [(s.name, s.spec) for s in ask(ocr=ModelSettings())] == [("ocr", "[models.ocr]")]
    assert refusal(orc=ModelSettings()).startswith('[models.orc]: no plugin "orc" is installed')


def test_a_table_waits_for_a_class_that_may_have_its_name(site: Site) -> None:
    settings = Settings(plugins=("m:MyModel",), models={"my_model": ModelSettings(slots=2)})
    (source,) = resolve(settings, installed())
    assert source.name is None
    check_tables(settings, ["my_model"])
    with pytest.raises(PluginError, match=r'\[models.my_model\].*did you mean "my_models"'):
        check_tables(settings, ["my_models"])


def test_one_name_for_two_models_names_both(site: Site) -> None:
    message = refusal("x=m:A", "x=m:B")
    assert 'two models are called "x": x=m:A and x=m:B' in message
    message = refusal("x=m:A", x=ModelSettings(plugin="m:B"))
    assert 'x=m:A and [models.x] plugin = "m:B"' in message
    derived = ask("m:A", "n:A")
    with pytest.raises(PluginError, match='two models are called "a": m:A and n:A'):
        by_name(("a", source) for source in derived)


def test_the_same_model_twice_is_one(site: Site) -> None:
    site.install("atomserve-ocr", "1.2", ocr="m:C")
    assert len(ask("ocr,ocr", ocr=ModelSettings(plugin="ocr"))) == 1


def test_a_file_brings_its_only_wrapper_and_its_neighbours(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "neighbour.py").write_text("WORD = 'hello'")
    file = folder / "json.py"
    file.write_text(
        "from site_base import Base\nfrom neighbour import WORD\n"
        "class OCRModel2(Base):\n    word = WORD\nAlias = OCRModel2\nclass Other: ...\n"
    )
    (source,) = ask(str(file))
    cls = load_class(source, base=site.base)
    assert cls.__dict__["word"] == "hello"
    assert sys.modules[cls.__module__].__file__ == str(file)
    assert sys.modules["json"].__file__ != str(file)
    assert served_name(source, cls) == "ocr_model2"
    assert load_class(ask(f"{file}:OCRModel2")[0], base=site.base) is cls


@pytest.mark.parametrize(
    ("name", "served"),
    [
        ("Echo", "echo"),
        ("OCRModel", "ocr_model"),
        ("Yolo8Det", "yolo8_det"),
        ("HTTPServer", "http_server"),
    ],
)
def test_a_class_is_served_in_snake_case(name: str, served: str) -> None:
    (source,) = ask(f"m:{name}")
    assert served_name(source, type(name, (), {})) == served


def test_a_class_whose_name_no_model_may_have_needs_one() -> None:
    (source,) = ask("m:_Private")
    with pytest.raises(PluginError, match=r"m:_Private: .* with NAME="):
        served_name(source, type("_Private", (), {}))
    (named,) = ask("p=m:_Private")
    assert served_name(named, type("_Private", (), {})) == "p"


@pytest.mark.parametrize(
    ("text", "attribute", "parts"),
    [
        ("import absent_module", "A", ["ModuleNotFoundError", "absent_module", "mod.py, line 1"]),
        ("\n\nclass A(:", "A", ["SyntaxError", "line 3"]),
        ("def f():\n  raise ValueError('a\\nb')\nf()", "A", ["ValueError: a b (mod.py, line 2)"]),
        ("raise SystemExit(3)", "A", ["SystemExit: 3"]),
        ("class Panic(BaseException): ...\nraise Panic", "A", ["Panic (mod.py, line 2)"]),
        ("class Abc: ...", "Abd", ["mod has no Abd; did you mean Abc?"]),
        ("def A(): ...", "A", ["A is not a class but of type function"]),
        ("class A: ...", "A", ["A is not a subclass of Base"]),
    ],
)
def test_a_failed_import_is_one_line_with_plugin_distribution_and_cause(
    site: Site, text: str, attribute: str, parts: list[str]
) -> None:
    site.write("mod", text)
    site.install("atomserve-ocr", "1.2", ocr=f"mod:{attribute}")
    message = failure(site, "ocr")
    assert message.startswith("ocr (atomserve-ocr 1.2): ")
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "found none; write one"),
        ("from site_base import Base", "found none; write one"),
        ("class A(Base): ...\nclass B(A): ...", "found A and B; name one: file.py:Class"),
    ],
)
def test_a_file_without_exactly_one_wrapper_needs_its_name(
    site: Site, text: str, found: str
) -> None:
    file = site.write("mod", f"from site_base import Base\n{text}\n")
    assert found in failure(site, str(file))


def test_a_file_that_failed_is_read_again(site: Site) -> None:
    file = site.write("mod", "raise ValueError('first')")
    assert "first" in failure(site, str(file))
    site.write("mod", "from site_base import Base\nclass Second(Base): ...\n")
    assert load_class(ask(str(file))[0], base=site.base).__name__ == "Second"


def test_a_missing_module_is_named(site: Site) -> None:
    assert failure(site, "x=absent.module:A") == (
        "x=absent.module:A: cannot be imported: ModuleNotFoundError: No module named 'absent'"
    )


def test_a_module_of_the_current_folder_is_found(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "local_model.py").write_text("from site_base import Base\nclass A(Base): ...")
    monkeypatch.chdir(folder)
    sys.path[:] = [entry for entry in sys.path if entry]
    assert load_class(ask("local_model:A")[0], base=site.base).__name__ == "A"


def test_a_loader_is_no_class(site: Site) -> None:
    (source,) = ask("aiges:x", loaders=("aiges",))
    with pytest.raises(PluginError, match="loader"):
        load_class(source, base=site.base)


@pytest.mark.parametrize(
    ("text", "ok", "reason"),
    [
        ("print('noise', flush=True)\nclass A(Base): ...", True, ""),
        ("class A: ...", False, "not a subclass of Base"),
        ("import absent_module", False, "absent_module"),
        ("import os\nos._exit(0)", False, "ended Python: exit 0"),
        ("import os\nos.kill(os.getpid(), 11)", False, "ended Python: Segmentation fault"),
        (
            "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
            "class A(Base): ...",
            True,
            "",
        ),
    ],
)
def test_a_probe_tells_the_import_state_and_imports_nothing_here(
    site: Site, text: str, ok: bool, reason: str
) -> None:
    site.write("probed", f"from site_base import Base\n{text}\n")
    site.install("atomserve-probed", "1.0", probed="probed:A")
    (row,) = (row for row in installed() if row.name == "probed")
    state = probe(row, base=site.base)
    assert (state.ok, "probed" in sys.modules) == (ok, False), state
    assert reason in state.reason
    assert ok or state.reason.startswith("probed (atomserve-probed 1.0): ")


def test_a_probe_of_a_hanging_import_ends(site: Site) -> None:
    site.write("probed", "import threading\nthreading.Event().wait()\n")
    site.install("atomserve-probed", "1.0", probed="probed:A")
    (row,) = (row for row in installed() if row.name == "probed")
    state = probe(row, base=site.base, timeout=0.5)
    assert "still importing after 0.5 s" in state.reason


def test_listing_needs_no_heavy_module() -> None:
    code = (
        "import sys; from atomserve.plugins import installed; installed(); "
        "print([m for m in ('numpy', 'starlette', 'asyncio', 'anyio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sources_are_plain_data() -> None:
    (source,) = ask("x=m:C")
    values: dict[Source, Any] = {source: 1}
    assert values[ask("x=m:C")[0]] == 1
