"""appserver.asgi.loader: applications are imported from real folders, each test's own."""

import os
import sys
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from appserver.asgi.loader import load
from appserver.errors import LoadError

ASGI = "async def app(scope, receive, send): pass\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder to import from; what was imported and put on sys.path is taken back."""
    modules, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, name: str, text: str = ASGI) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def refuse(app: str, folder: Path, *, factory: bool = False) -> LoadError:
    with pytest.raises(LoadError) as caught:
        load(app, str(folder), factory)
    return caught.value


# --- what can be named ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", ["one:app", "one", "one:", "one.py", "one.py:app", "./one.py"])
def test_a_module_or_its_file(app: str, folder: Path) -> None:
    write(folder, "one.py")
    found, interface = load(app, str(folder), factory=False)
    assert interface == "asgi3"
    assert found is sys.modules["one"].app
    assert sys.path[0] == str(folder)


def test_app_is_looked_for_before_application(folder: Path) -> None:
    write(folder, "two.py", "async def application(scope, receive, send): pass\n")
    write(folder, "three.py", ASGI + "application = None\n")
    assert load("two", str(folder), factory=False).application is sys.modules["two"].application
    assert load("three", str(folder), factory=False).application is sys.modules["three"].app


def test_an_attribute_may_have_dots_and_a_module_too(folder: Path) -> None:
    write(folder, "pack/__init__.py", "")
    write(folder, "pack/web.py", "class Site:\n    async def app(self, scope, receive, send): pass\nsite = Site()\n")
    assert load("pack.web:site.app", str(folder), factory=False).application == sys.modules["pack.web"].site.app


def test_a_file_in_a_package_is_imported_as_part_of_it(folder: Path) -> None:
    write(folder, "src/pack/__init__.py", "")
    write(folder, "src/pack/inner.py")
    write(folder, "src/pack/web.py", "from .inner import app\n")
    found = load("src/pack/web.py", str(folder), factory=False).application
    assert found is sys.modules["pack.inner"].app
    assert sys.path[:2] == [str(folder / "src"), str(folder)]


def test_a_packages_own_file_is_the_package(folder: Path) -> None:
    write(folder, "pack/__init__.py")
    assert load("pack/__init__.py", str(folder), factory=False).application is sys.modules["pack"].app


def test_an_absolute_path_needs_no_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = write(elsewhere, "far-away.py")
    assert load(f"{path}:app", str(folder), factory=False).application is sys.modules["far-away"].app


@pytest.mark.parametrize(("app", "factory"), [("made:make()", False), ("made:make", True), ("made:make()", True)])
def test_a_factory_is_called_once(app: str, factory: bool, folder: Path) -> None:
    write(folder, "made.py", ASGI + "calls = []\ndef make():\n    calls.append(1)\n    return app\n")
    assert load(app, str(folder), factory).application is sys.modules["made"].app
    assert sys.modules["made"].calls == [1]


@pytest.mark.parametrize(
    "text",
    [
        "def app(scope, receive, send): ...",
        "def app(*args): ...",
        "class C:\n    async def __call__(self, scope, receive, send): ...\napp = C()",
        "class app:\n    def __init__(self, scope, receive, send): ...\n    def __await__(self): ...",
        "import functools\nasync def f(x, scope, receive, send): ...\napp = functools.partial(f, 1)",
        "async def app(scope, receive, send, extra=None): ...",
    ],
)
def test_every_shape_of_an_asgi_3_application_is_taken(text: str, folder: Path) -> None:
    write(folder, "shape.py", text)
    assert load("shape:app", str(folder), factory=False).application is sys.modules["shape"].app


# --- what was named wrongly -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", [":app", "one:a b", "one:a..b", "a..b:app", ".one:app", "one:app:x", "one:f(1)"])
def test_what_is_no_name_is_said_to_be_none(app: str, folder: Path) -> None:
    write(folder, "one.py")
    assert "expected module:attribute" in str(refuse(app, folder))


def test_what_hypercorn_writes_before_an_application_is_left_out_in_the_hint(folder: Path) -> None:
    write(folder, "one.py")
    assert str(refuse("asgi:one:app", folder)).endswith("or a file's path; did you mean one:app?")


def test_an_unknown_module_is_named_with_the_folder_and_the_nearest(folder: Path) -> None:
    write(folder, "mainly.py")
    error = refuse("mianly:app", folder)
    assert str(error) == f"mianly:app: no module mianly in {folder} or on Python's path; did you mean mainly?"
    assert error.__cause__ is None


def test_an_unknown_module_of_a_package(folder: Path) -> None:
    write(folder, "pack/__init__.py", "")
    write(folder, "pack/web.py")
    message = f"pack.wbe:app: no module pack.wbe in {folder / 'pack'}; did you mean pack.web?"
    assert str(refuse("pack.wbe:app", folder)) == message


def test_a_module_is_no_package(folder: Path) -> None:
    write(folder, "one.py")
    assert str(refuse("one.two:app", folder)).endswith("one is a module, not a package: it has no one.two")
    assert str(refuse("one.app", folder)).endswith("it has no one.app; did you mean one:app?")


def test_an_unknown_attribute_is_named_with_the_nearest(folder: Path) -> None:
    write(folder, "one.py")
    assert str(refuse("one:ap", folder)) == "one:ap: one has no ap; did you mean app?"
    write(folder, "deep.py", "class Site:\n    app = None\nsite = Site()\n")
    assert str(refuse("deep:site.apps", folder)) == "deep:site.apps: Site object has no apps; did you mean app?"


def test_a_module_without_the_usual_attributes_offers_what_looks_like_an_application(folder: Path) -> None:
    write(folder, "api.py", "class Api:\n    async def __call__(self, scope, receive, send): ...\napi = Api()\n")
    assert str(refuse("api", folder)) == "api: api has neither app nor application; did you mean api:api?"
    write(folder, "empty.py", "")
    assert str(refuse("empty", folder)) == "empty: empty has neither app nor application"


def test_a_missing_file_is_named_with_the_nearest(folder: Path) -> None:
    write(folder, "main.py")
    assert str(refuse("mian.py", folder)) == f"mian.py: no file {folder}/mian.py; did you mean {folder}/main.py?"


def test_a_file_whose_module_name_is_taken(folder: Path) -> None:
    write(folder, "json.py")
    assert f"its name is taken by the module json ({sys.modules['json'].__file__})" in str(refuse("json.py", folder))


def test_a_missing_folder(folder: Path) -> None:
    assert str(refuse("one:app", folder / "none")) == f"one:app: --app-dir {folder / 'none'} is not a folder"


@pytest.fixture
def nobody(folder: Path) -> Iterator[None]:
    """The test runs as nobody, who may go through the folder."""
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    for above in (folder, *folder.parents[:-2]):
        above.chmod(0o711)
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_folder_that_may_not_be_looked_at(folder: Path, nobody: None) -> None:
    os.seteuid(0)
    write(folder, "closed/app/one.py")
    (folder / "closed").chmod(0o700)
    os.seteuid(65534)
    said = "the server's user may not look there (a folder on the way without x; ProtectHome=)"
    inner = folder / "closed" / "app"
    assert str(refuse("one:app", inner)) == f"one:app: --app-dir {inner}: {said}"
    assert str(refuse(f"{inner}/one.py", folder)) == f"{inner}/one.py: {inner}/one.py: {said}"


def test_a_folder_that_may_not_be_listed(folder: Path, nobody: None) -> None:
    message = f"two:app: no module two in {folder} or on Python's path: the server's user may not list {folder}"
    assert str(refuse("two:app", folder)) == message


def test_a_path_that_is_too_long(folder: Path) -> None:
    long = folder / ("x" * 300)
    assert str(refuse("one:app", long)) == f"one:app: --app-dir {long}: File name too long"


# --- what it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "def app(environ, start_response): ...",
        "class W:\n    def __call__(self, environ, start_response): ...\napp = W()",
        "class app:\n    def __init__(self, environ, start_response): ...\n    def __iter__(self): ...",
        "import functools\ndef f(x, environ, start_response): ...\napp = functools.partial(f, 1)",
        "def app(environ, start_response, extra=None): ...",
    ],
)
def test_every_shape_of_a_wsgi_application_is_taken_for_one(text: str, folder: Path) -> None:
    write(folder, "shape.py", text)
    assert load("shape:app", str(folder), factory=False) == (sys.modules["shape"].app, "wsgi")


@pytest.mark.parametrize("interface", ["asgi3", "wsgi"])
def test_what_can_be_both_is_what_is_said(interface: str, folder: Path) -> None:
    write(folder, "shape.py", "def app(*args): ...")
    assert load("shape:app", str(folder), factory=False, interface=interface).interface == interface


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("app = {}", "is a dict object, not callable"),
        ("app = None", "is a NoneType object, not callable"),
        ("async def app(environ, start_response): ...", "takes two arguments as a WSGI application does, and is async"),
        ("class W:\n    async def __call__(self, a, b): ...\napp = W()", "takes two arguments as a WSGI"),
        ("def app(scope): ...", "looks like an ASGI 2 application"),
        ("class app:\n    def __init__(self, scope): ...", "looks like an ASGI 2 application"),
        ("def app(): ...", "looks like a factory: write one:app() or add --factory"),
    ],
)
def test_what_it_looks_like_is_said(text: str, says: str, folder: Path) -> None:
    write(folder, "one.py", text)
    message = str(refuse("one", folder))
    assert says in message
    assert "or a WSGI application, a callable(environ, start_response)" in message


def test_of_other_names_those_are_meant_that_take_what_an_application_takes(folder: Path) -> None:
    write(folder, "one.py", "def add(one, other): ...\ndef site(environ, start_response): ...\n")
    assert str(refuse("one", folder)).endswith("; did you mean one:site?")


def test_what_a_factory_returns_is_looked_at(folder: Path) -> None:
    write(folder, "one.py", "def make(): return {}\nasync def slow(): ...\nthing = 5\n")
    assert "is a dict object" in str(refuse("one:make()", folder))
    assert "the factory is async" in str(refuse("one:slow()", folder))
    assert "is a int, which cannot be called" in str(refuse("one:thing()", folder))


# --- what the application raises --------------------------------------------------------------------------------------


def test_an_exception_at_import_is_the_cause_with_its_own_frames_only(folder: Path) -> None:
    write(folder, "one.py", "from pack.deep import x\n")
    write(folder, "pack/__init__.py", "")
    path = write(folder, "pack/deep.py", "def fail():\n    raise RuntimeError('no database')\nfail()\n")
    error = refuse("one:app", folder)
    assert str(error) == "one:app: importing it raised RuntimeError: no database"
    assert isinstance(error.__cause__, RuntimeError)
    frames = traceback.extract_tb(error.__cause__.__traceback__)
    assert frames[0].filename == str(folder / "one.py")
    assert [frame.filename for frame in frames if "importlib" not in frame.filename] == [
        str(folder / "one.py"),
        str(path),
        str(path),
    ]


def test_a_module_that_the_application_lacks_is_its_own_error(folder: Path) -> None:
    write(folder, "one.py", "import surely_not_installed\n")
    error = refuse("one:app", folder)
    assert isinstance(error.__cause__, ModuleNotFoundError)
    assert "raised ModuleNotFoundError: No module named 'surely_not_installed'" in str(error)


def test_a_syntax_error_names_its_line(folder: Path) -> None:
    path = write(folder, "one.py", "app = (\n")
    error = refuse("one:app", folder)
    assert isinstance(error.__cause__, SyntaxError)
    assert error.__cause__.filename == str(path)
    assert error.__cause__.__traceback__ is None


def test_an_application_that_exits_at_import_does_not_end_the_server(folder: Path) -> None:
    write(folder, "one.py", "import sys\nsys.exit(0)\n")
    assert isinstance(refuse("one:app", folder).__cause__, SystemExit)


def test_a_factory_that_raises_is_the_cause(folder: Path) -> None:
    path = write(folder, "one.py", "def make():\n    return 1 / 0\n")
    error = refuse("one:make", folder, factory=True)
    assert str(error) == "one:make: calling the factory raised ZeroDivisionError: division by zero"
    assert error.__cause__ is not None
    assert [frame.filename for frame in traceback.extract_tb(error.__cause__.__traceback__)] == [str(path)]


def test_an_interrupt_goes_through(folder: Path) -> None:
    write(folder, "one.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load("one:app", str(folder), factory=False)
