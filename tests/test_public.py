"""What `fastloss.__all__` promises: names, docstrings, signatures, pickles, types, import floors."""

from __future__ import annotations

import ast
import copy
import doctest
import importlib
import inspect
import pickle
import pydoc
import re
import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import DIVERGENCES, ELEMENTS

import fastloss as fl
from fastloss import reference
from fastloss._engine import cache, threads
from fastloss._engine.loss import Operation

PACKAGE = Path(fl.__file__).parent
RUNTIME = ["num_threads", "set_num_threads", "show_config", "warmup"]
OPERATIONS = [n for n in fl.__all__ if isinstance(getattr(fl, n), Operation)]
SECTIONS = ["Parameters", "Returns", "Raises", "Notes", "References", "Examples"]
PENALTIES = ("l1_penalty", "l2_penalty", "feature_incay_penalty")
MARGINS = ("multiclass_hinge_loss", "max_hinge_loss", "lse_hinge_loss", "arcface_loss", "focal_loss")
METHODS = {
    "softmax": ["jvp", "vjp", "jvp_from_output", "vjp_from_output", "jacobian"],
    "log_softmax": ["jvp", "vjp", "jvp_from_output", "vjp_from_output", "jacobian"],
    "logsumexp": ["jvp", "vjp"],
    "softplus": ["jvp", "vjp"],
    "sigmoid": ["jvp", "vjp"],
    "log_sigmoid": ["jvp", "vjp"],
    "cross_entropy": ["value_and_grad", "grad", "hvp", "value_grad_hess", "temperature_grad"],
    "nll_loss": ["value_and_grad", "grad"],
    **{name: ["value_and_grad", "grad", "value_grad_hess"] for name in ELEMENTS},
    **{name: ["value_and_grad", "grad"] for name in (*PENALTIES, *MARGINS)},
    "additive_margin_softmax_loss": ["value_and_grad", "grad", "scale_grad"],
    "cosine_logits": ["vjp"],
    **{name: ["vjp"] if name.endswith("from_logits") else [] for name in DIVERGENCES},
}


def run(code: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_all_is_sorted_and_resolves() -> None:
    assert list(fl.__all__) == sorted(fl.__all__)
    assert set(fl.__all__) <= set(dir(fl))
    assert all(callable(getattr(fl, name)) for name in fl.__all__)
    assert set(METHODS) == set(OPERATIONS)
    with pytest.raises(AttributeError, match="no_such_thing"):
        fl.no_such_thing  # noqa: B018


def test_every_name_has_a_reference() -> None:
    formulas = set(fl.__all__) - set(RUNTIME)
    assert formulas <= set(reference.__all__)
    for name in formulas:
        own = [p for p in inspect.signature(getattr(fl, name)).parameters if p != "out"]
        other = list(inspect.signature(getattr(reference, name)).parameters)
        assert own == other, name


@pytest.mark.parametrize("name", fl.__all__)
def test_docstring_has_every_section(name: str) -> None:
    doc = inspect.getdoc(getattr(fl, name))
    assert doc is not None
    needed = ["Parameters", "Raises", "Notes", "Examples"] if name in RUNTIME else SECTIONS
    places = [doc.find(f"\n{s}\n{'-' * len(s)}\n") for s in needed]
    assert -1 not in places, dict(zip(needed, places, strict=True))
    assert places == sorted(places)
    if name not in RUNTIME:
        assert ".. math::" in doc
        assert "Scratch" in doc
    listed = re.findall(r"^(\w+) : ", doc[places[0] : places[1]], flags=re.M)
    assert listed == list(inspect.signature(getattr(fl, name)).parameters)


@pytest.mark.parametrize("name", fl.__all__)
def test_doctests_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_process", None)  # which an example sets; put back at the end
    finder = doctest.DocTestFinder(recurse=False)
    tests = [t for t in finder.find(getattr(fl, name), name, globs={}) if t.examples]
    assert tests, "a docstring without an example"
    for test in tests:
        assert doctest.DocTestRunner().run(test).failed == 0
    assert doctest.testmod(fl).failed == 0


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_passes_for_its_function(name: str) -> None:
    op = getattr(fl, name)
    door = op.__wrapped__
    assert isinstance(door, types.FunctionType)
    assert op.__name__ == op.__qualname__ == name
    assert op.__module__ == door.__module__
    assert op.__module__.startswith("fastloss.")
    assert op.__doc__ == door.__doc__
    signature = inspect.signature(op)
    assert list(signature.parameters.values()) == list(inspect.signature(door).parameters.values())
    assert signature.return_annotation in ("Array", "Result")
    help_text = pydoc.plain(pydoc.render_doc(op))
    body = help_text.split("\n", 2)[2]
    assert body.startswith(f"{name}({next(iter(signature.parameters))}"), body[:80]
    assert inspect.getdoc(op).splitlines()[0] in help_text
    assert "Bound" not in help_text
    assert repr(op) == f"<fastloss operation {name}>"
    hints = typing.get_type_hints(op)
    assert set(hints) == {*signature.parameters, "return"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_and_methods_pickle_as_themselves(name: str) -> None:
    op = getattr(fl, name)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(op, protocol)) is op
    assert copy.deepcopy(op) is op
    assert copy.copy(op) is op
    for method in METHODS[name]:
        bound = getattr(op, method)
        assert pickle.loads(pickle.dumps(bound)) is bound
        assert copy.deepcopy(bound) is bound


@pytest.mark.parametrize("name", OPERATIONS)
def test_methods_are_exactly_those_of_the_contract(name: str) -> None:
    op = getattr(fl, name)
    public = [m for m in dir(op) if not m.startswith("_")]
    assert sorted(public) == sorted(METHODS[name])
    options = [p for p in inspect.signature(op).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for method in public:
        signature = inspect.signature(getattr(op, method))
        mine = signature.parameters
        assert all(mine[p.name] == p for p in options if p.name != "out"), method
        assert ("out" in mine) == (method not in ("jacobian", "temperature_grad", "scale_grad"))
        assert getattr(op, method).__qualname__ == f"{name}.{method}"
        text = pydoc.plain(pydoc.render_doc(getattr(op, method)))
        assert f"{method}({next(iter(mine))}" in text


def test_vectors_may_be_named() -> None:
    x, t = np.array([1.0, 2.0]), np.array([0.5, -1.0])
    assert np.array_equal(fl.softmax.jvp(x, tangent=t), fl.softmax.jvp(x, t))
    assert np.array_equal(fl.softmax.jvp(x=x, tangent=t, axis=0), fl.softmax.jvp(x, t))
    y = fl.softmax(x)
    assert np.array_equal(
        fl.softmax.vjp_from_output(y=y, cotangent=t), fl.softmax.vjp_from_output(y, t)
    )
    assert np.array_equal(
        fl.cross_entropy.hvp(targets=1, logits=x, tangent=t), fl.cross_entropy.hvp(x, 1, t)
    )
    with pytest.raises(TypeError, match="tangent"):
        fl.softmax.jvp(x)
    with pytest.raises(TypeError, match="out"):
        fl.softmax.jacobian(x, out=np.empty((2, 2)))


# ---- imports ------------------------------------------------------------------------------------
def test_import_brings_no_numba_and_the_first_touch_does() -> None:
    loaded = "print('numba' in sys.modules)"
    code = f"import sys, fastloss as fl; {loaded}; fl.softmax; {loaded}"
    assert run(code).split() == ["False", "True"]
    assert run("import sys, fastloss.reference; print('numba' in sys.modules)") == "False"
    assert run("import sys, fastloss as fl; fl.check_gradient; print('numba' in sys.modules)") == "False"


@pytest.mark.parametrize(
    "first",
    [
        "import fastloss.softmax, fastloss.cross_entropy",
        "from fastloss.softmax import softmax",
        "import pickle; pickle.loads(b'cfastloss.softmax\\nsoftmax\\n.')",
        "from fastloss import *",
    ],
)
def test_operations_win_over_their_modules(first: str) -> None:
    code = f"{first}\nimport fastloss as fl\nprint(fl.softmax, fl.cross_entropy)"
    assert run(code) == "<fastloss operation softmax> <fastloss operation cross_entropy>"


FLOORS = {
    "jit": 0, "vector": 0, "elementary": 0, "half": 0, "transpose": 0,
    "arrays": 1, "kernels": 1, "launch": 1, "again": 1, "cache": 1, "threads": 1, "crew": 1, "process": 1,
    "blocks": 2, "leaves": 2, "twofold": 2, "strips": 2, "rows": 2, "across": 2, "products": 2,
    "pointwise": 2, "elementwise": 2, "rowsums": 2, "pairs": 2, "loss": 2, "targets": 2, "curved": 2,
    "likelihood": 2, "soft": 2, "few": 2, "classes": 2, "two": 2, "hinges": 2,
}  # fmt: skip


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("fastloss")}


def test_no_floor_imports_one_above() -> None:
    for path in (PACKAGE / "_engine").glob("*.py"):
        if path.stem == "__init__":
            continue
        for name in imports(path):
            part = name.split(".")
            assert part[1:2] == ["_engine"], f"{path.name} imports {name}"
            if len(part) > 2:
                assert FLOORS[part[2]] <= FLOORS[path.stem], f"{path.name} imports {name}"


def test_families_do_not_import_each_other() -> None:
    families = {p.stem for p in PACKAGE.glob("*.py")} - {"__init__", "__main__", "runtime"}
    for family in families:
        used = {name.split(".")[1] for name in imports(PACKAGE / f"{family}.py") if "." in name}
        assert used <= {"_engine"}, f"{family} imports {used}"
    assert imports(PACKAGE / "reference.py") == set()
    assert imports(PACKAGE / "gradcheck.py") == set()


def test_no_file_without_a_name() -> None:
    stems = {p.stem for p in PACKAGE.rglob("*.py")}
    assert not stems & {"utils", "helpers", "common", "misc"}


def test_typed_package_is_marked() -> None:
    assert (PACKAGE / "py.typed").exists()


USES = """
import numpy as np
import fastloss as fl
from numpy.typing import NDArray
from typing import Any
x = np.zeros((2, 3))
p: NDArray[Any] = fl.softmax(x, axis=0, temperature=2.0, out=x)
loss = fl.cross_entropy(x, [0, 1], reduction="sum", label_smoothing=0.1)
reveal_type(loss)
value, grad = fl.cross_entropy.value_and_grad(x, [0, 1], out=x)
g: NDArray[Any] = grad
reveal_type(fl.softmax.jvp(x, x))
reveal_type(fl.logsumexp.vjp(x, x))
reveal_type(fl.cross_entropy.value_grad_hess(x, [0, 1])[2])
"""


def test_operations_are_typed(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text(USES)
    bad.write_text("import fastloss as fl\nfl.softmax([1.0], temprature=2.0)\nfl.softmax()\n")
    flags = ["--strict", "--no-incremental", "--no-error-summary", "--follow-imports=silent"]
    out, _, status = api.run([*flags, str(good)])
    assert status == 0, out
    assert out.count("ndarray") >= 4
    assert '"Any"' not in out
    out, _, status = api.run([*flags, str(bad)])
    assert status == 1
    assert out.count("bad.py:2: error") == 1
    assert out.count("bad.py:3: error") == 1


def test_calls_compile_nothing_new() -> None:
    """One compute type, one compilation: layouts, options and methods change none of it."""
    module: Any = importlib.import_module("fastloss.softmax")
    x = np.random.default_rng(0).normal(size=(4, 6))
    fl.softmax(x)
    compilations, ready = cache.compilations, dict(module.map_rows.ready)
    for same in (x[::-1], x[:, ::2], x.T, x.astype(">f8"), np.broadcast_to(x[0], (9, 6)), x.astype(int)):
        fl.softmax(same, temperature=2.0)
        fl.log_softmax.vjp(same, same)
        fl.logsumexp.vjp(same, np.zeros(same.shape[0]))
    assert cache.compilations == compilations
    assert module.map_rows.ready == ready
