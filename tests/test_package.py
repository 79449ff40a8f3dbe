"""The package as a whole: what importing it costs, which way imports point."""

import ast
import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import keras
import pytest

import keras_l0

ROOT = Path(keras_l0.__file__).parent
MODULES = {
    ".".join(("keras_l0", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.rglob("*.py"))
}


def python(code, **environment):
    """Runs code in a fresh interpreter and returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT.parent), **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def without(*names):
    """Code that makes modules impossible to import."""
    return f"import sys\nfor name in {names!r}: sys.modules[name] = None\n"


def test_importing_brings_no_tensorflow_of_its_own():
    if keras.backend.backend() == "tensorflow":
        pytest.importorskip("jax")
        environment = {"KERAS_BACKEND": "jax"}
    else:
        environment = {}
    code = "import sys, {}; print('tensorflow' in sys.modules)"
    assert python(code.format("keras_l0"), **environment) == "False"


def test_importing_brings_nothing_heavy_beside_keras():
    code = (
        "import sys, keras\nbefore = set(sys.modules)\nimport keras_l0\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    added = set(python(code).split())
    assert "keras_l0" in added
    assert not added & {"matplotlib", "pandas", "scipy", "sklearn", "ai_edge_litert"}
    assert not added & {"click", "jinja2", "jax", "tensorflow", "torch"}


@pytest.mark.parametrize(
    "missing", [("keras",), ("tensorflow", "jax", "torch"), ("optree",)], ids=", ".join
)
def test_without_a_backend_one_sentence_names_the_extras(missing):
    code = without(*missing) + (
        "try:\n    import keras_l0\nexcept ImportError as error:\n    print(error)"
    )
    message = python(code)
    assert message.startswith("keras_l0 needs Keras with a backend to run on: ")
    for extra in ("keras-l0[tensorflow]", "[tensorflow-cpu]", "[jax]", "[torch]"):
        assert extra in message
    assert "\n" not in message


def test_every_public_name_exists():
    assert len(set(keras_l0.__all__)) == len(keras_l0.__all__)
    for name in keras_l0.__all__:
        assert getattr(keras_l0, name) is not None
    for module in (keras_l0.layers, keras_l0.regularizers, keras_l0.callbacks):
        for name in getattr(module, "__all__", []):
            assert hasattr(module, name), f"{module.__name__}.{name}"


PROMISED = [
    "HardConcrete", "regularizers.L0", "layers.L0Gate", "layers.L0Dense",
    "layers.L0Conv2D", "callbacks.Density", "gates", "plan", "strip", "profile",
    "register_strip_rule",
]  # fmt: skip


@pytest.mark.parametrize("name", PROMISED)
def test_the_contract(name):
    thing = keras_l0
    for part in name.split("."):
        thing = getattr(thing, part)
    assert callable(thing) and thing.__doc__


def test_everything_serializes_under_one_package():
    registered = [
        name
        for name, cls in keras.saving.get_custom_objects().items()
        if getattr(cls, "__module__", "").startswith("keras_l0.")
    ]
    assert {"keras_l0>L0Gate", "keras_l0>L0", "keras_l0>HardConcrete"} <= set(
        registered
    )
    assert all(name.startswith("keras_l0>") for name in registered)


def test_one_version_string():
    found = [
        (path, line)
        for path in MODULES.values()
        for line in path.read_text().splitlines()
        if re.match(r"_*version_*\s*=", line, re.IGNORECASE)
    ]
    assert [path for path, _ in found] == [ROOT / "__init__.py"]
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", keras_l0.__version__)
    setup = ROOT.parent / "setup.cfg"
    if setup.exists():
        assert "version = attr: keras_l0.__version__" in setup.read_text()
    try:
        assert metadata.version("keras-l0") == keras_l0.__version__
    except metadata.PackageNotFoundError:
        pass  # Run from a checkout.


def test_the_oldest_dependencies_are_the_lower_bounds():
    repository = ROOT.parent
    if not (repository / "tests/oldest.txt").exists():
        pytest.skip("not in a checkout")
    setup = (repository / "setup.cfg").read_text()
    bounds = dict(re.findall(r"^    ([\w-]+)>=([\d.]+)", setup, re.M))
    del bounds["tensorflow"]  # tensorflow-cpu stands for it.
    pinned = re.findall(
        r"^([\w-]+)==([\d.]+)", (repository / "tests/oldest.txt").read_text(), re.M
    )
    assert [name for name, _ in pinned] == sorted(bounds)
    for name, version in pinned:
        assert re.fullmatch(rf"{re.escape(bounds[name])}(\.0)*", version), name


def test_every_folder_is_a_package():
    """Wheels hold packages only: a checkout imports what an installation lacks."""
    folders = {path.parent for path in MODULES.values()}
    assert not [str(f) for f in folders if not (f / "__init__.py").exists()]
    assert (ROOT / "py.typed").exists()


def test_the_map_for_contributors_has_every_module():
    guide = ROOT.parent / "CONTRIBUTING.md"
    if not guide.exists():
        pytest.skip("not in a checkout")
    rows = re.findall(r"^\| (`.*?) \|", guide.read_text(), re.M)
    named = re.findall(r"`(?:keras_l0/)?(\w+)(?:\.py|/)`", " ".join(rows))
    parts = {name.split(".")[1] for name in MODULES if "." in name}
    assert not parts - {"__main__"} - set(named)


def test_workflows_call_targets_of_the_makefile():
    repository = ROOT.parent
    if not (repository / ".github").exists():
        pytest.skip("not in a checkout")
    targets = re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.M)
    for workflow in (repository / ".github/workflows").glob("*.yml"):
        text = workflow.read_text()
        assert set(re.findall(r"run: (.*)", text)) == {"make ${{ matrix.target }}"}
        (called,) = re.findall(r"target: \[(.*)\]", text)
        assert set(called.split(", ")) <= set(targets)


def imports(name, everywhere=True):
    """What a module imports: names of modules, of `from` imports both parts.

    Imports for type checkers only do not count.
    """
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            found.add(base)
            found.update(
                f"{base}.{alias.name}"
                for alias in node.names
                if f"{base}.{alias.name}" in MODULES
            )
        elif not everywhere and isinstance(node, (ast.FunctionDef, ast.Lambda)):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def part(module):
    """The part of the house a module belongs to: its name below keras_l0."""
    return (module.split(".") + [""])[1]


# What each part may import of the package: lower parts only.
BELOW = {
    "arguments": set(),
    "packages": set(),
    "printing": set(),
    "hard_concrete": {"arguments"},
    "regularizers": {"arguments", "hard_concrete"},
    "layers": {"arguments", "hard_concrete", "regularizers"},
    "analysis": {"arguments", "hard_concrete", "printing", "regularizers", "layers"},
    "optimizers": {"arguments", "hard_concrete", "regularizers", "layers"},
}
NEVER = {
    "page": {"callbacks", "convert", "schedules", "cli", "demo"},
    "schedules": {"analysis", "budget", "rewrite", "export", "report", "cli"},
    "files": {"layers", "analysis", "budget", "rewrite", "export", "report", "cli"},
    "latency_table": {"convert", "budget", "rewrite", "export", "report", "cli"},
    "budget": {
        "callbacks", "compaction", "convert", "export", "report", "rewrite",
        "schedules", "stripping", "page", "cli", "demo",
    },
    "convert": {
        "callbacks", "compaction", "export", "report", "rewrite", "schedules",
        "stripping", "page", "cli", "demo",
    },
    "callbacks": {"convert", "rewrite", "stripping", "export", "page", "cli", "demo"},
    "rewrite": {
        "budget", "callbacks", "compaction", "convert", "export", "report",
        "schedules", "stripping", "page", "cli", "demo",
    },
    "stripping": {
        "callbacks", "compaction", "convert", "export", "report", "schedules", "page",
        "cli", "demo",
    },
    "compaction": {
        "callbacks", "convert", "export", "report", "schedules", "stripping", "page",
        "cli", "demo",
    },
    "report": {"callbacks", "page", "cli", "demo"},
    "export": {"callbacks", "convert", "page", "cli", "demo"},
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name):
    of_ours = {m for m in imports(name) if m.split(".")[0] == "keras_l0"}
    used = {part(m) for m in of_ours} - {part(name), ""}
    if part(name) in BELOW:
        assert used <= BELOW[part(name)]
    assert not used & NEVER.get(part(name), set())
    # The package itself is a door for users, not a corridor.
    if part(name) not in {"cli", "demo", "__main__", ""}:
        assert "keras_l0" not in {m for m in of_ours if part(m) == ""}


@pytest.mark.parametrize("name", MODULES)
def test_tensorflow_is_imported_by_export_only(name):
    used = {m.split(".")[0] for m in imports(name)}
    if part(name) != "export":
        assert not used & {"tensorflow", "tf_keras", "ai_edge_litert", "jax", "torch"}
    assert "tensorflow" not in {
        m.split(".")[0] for m in imports(name, everywhere=False)
    }, "import TensorFlow where it is used, not with the module"


def test_imports_make_no_circle():
    """Each module can be the first one that a process imports."""
    graph = {
        name: {m for m in imports(name, everywhere=False) if m in MODULES} - {name}
        for name in MODULES
    }
    # A package imports its parts, and `from package import part` names the package.
    for name in graph:
        graph[name] = {m for m in graph[name] if not name.startswith(f"{m}.")}
    done = []
    while len(done) < len(graph):
        ready = [n for n in graph if n not in done and graph[n] <= set(done)]
        assert ready, f"a circle among {sorted(set(graph) - set(done))}"
        done.extend(ready)


def documented():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in pkgutil.walk_packages([str(ROOT)], "keras_l0."):
        if module.name.split(".")[-1] == "__main__" or part(module.name) == "demo":
            continue
        try:
            loaded = importlib.import_module(module.name)
        except ImportError as error:
            if error.name and error.name.startswith("keras_l0"):
                raise
            continue  # An extra that is not installed here.
        for test in finder.find(loaded, module.name):
            if test.examples:
                yield test


def example(test):
    marks = [pytest.mark.tensorflow] if part(test.name) == "export" else []
    return pytest.param(test, id=test.name.removeprefix("keras_l0."), marks=marks)


@pytest.mark.parametrize("test", [example(test) for test in documented()])
def test_examples_in_docstrings(test, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.backend.clear_session()  # Layers are numbered from 0.
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_there_are_examples_to_run():
    names = {test.name for test in documented()}
    assert {"keras_l0.hard_concrete.HardConcrete", "keras_l0.regularizers.L0"} <= names
    assert len(names) >= 10


@pytest.mark.parametrize(
    "name",
    [
        "Budget", "Compaction", "ExportReport", "GateOptions", "HardConcrete",
        "LatencyTable", "Profile", "Rule", "StripPlan", "add_gates", "benchmark",
        "callbacks", "compact", "fit_compacting", "gates", "html_report", "layers",
        "measure_latency", "plan", "plan_gates", "profile", "quantize_aware",
        "register_strip_rule",
        "regularizers", "strip", "to_tflite", "with_budget",
    ],
)  # fmt: skip
def test_what_others_rely_on_is_there(name):
    assert name in keras_l0.__all__
    assert hasattr(keras_l0, name)
