"""Entropies and divergences: edges, laws, derivatives, bits, bad input, and peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numba
import numpy as np
import pytest
from cases import DIVERGENCES, layouts, pair_of_logits
from closeness import assert_close

import fastloss as fl
from fastloss import reference
from fastloss._engine import elementary, vector

Rng = np.random.Generator
inf, nan = np.inf, np.nan
PROBABILITIES = ("entropy", "distribution_cross_entropy", "kl_divergence", "js_divergence")
LOGITS = ("entropy_from_logits", "kl_divergence_from_logits", "js_divergence_from_logits")
ROWS = (*PROBABILITIES, *LOGITS)


def arguments(name: str, rng: Rng, shape: tuple[int, ...], dtype: type, **options: Any) -> tuple[Any, ...]:
    return DIVERGENCES[name][0](rng, shape, dtype, options)


# ---- logarithms ---------------------------------------------------------------------------------
def loop_of(function: Callable[..., Any]) -> Callable[..., Any]:
    @numba.njit(error_model="numpy")
    def loop(a: Any, b: Any) -> Any:
        y = np.empty_like(a)
        for k in range(a.size):
            y[k] = function(a[k], b[k])
        return y

    return loop


def of_one(stub: Callable[..., Any]) -> Callable[..., Any]:
    """For `loop_of`, which calls with two numbers: a function of one that only compiled code can call."""

    @numba.njit(forceinline=True, error_model="numpy")
    def first(a: Any, _: Any) -> Any:
        return stub(a)

    return first


def of_two(stub: Callable[..., Any]) -> Callable[..., Any]:
    @numba.njit(forceinline=True, error_model="numpy")
    def both(a: Any, b: Any) -> Any:
        return stub(a, b)

    return both


BOTH, WIDE = (np.float32, np.float64), (np.float64,)


@pytest.mark.parametrize(
    ("which", "dtype"),
    [
        (which, dtype)
        for which, dtypes in {
            "log_ratio": BOTH, "log_positive": BOTH, "ratio_normal": BOTH, "log_normal": BOTH,
            "log1p_unit": BOTH, "log1p": WIDE,
        }.items()
        for dtype in dtypes
    ],
)
def test_logarithms(which: str, dtype: type, rng: Rng) -> None:
    """Within two units of mpmath's, over all exponents, about 1 and near each other."""
    limits = np.finfo(dtype)
    low, high = np.log10(float(limits.smallest_subnormal)), np.log10(float(limits.max))
    a, b = (
        np.concatenate(
            [10.0 ** rng.uniform(low, high, 1500), rng.uniform(0.5, 2, 1500), 1 + rng.normal(0, 1e-4, 500)]
        ).astype(dtype)
        for _ in range(2)
    )
    a[-1], b[-1], a[-2], b[-2] = limits.max, limits.smallest_subnormal, limits.smallest_subnormal, limits.max
    a[-3] = np.nextafter(b[-3], dtype(2))
    a, b = (np.maximum(v, limits.smallest_subnormal) for v in (a, b))
    if which in ("log_normal", "ratio_normal"):
        a, b = np.maximum(a, limits.tiny), np.maximum(b, limits.tiny)
    if which == "log1p_unit":  # of 0 to 1
        a = np.where(a > 1, rng.random(a.size), a).astype(dtype)
        a[:5] = 0, 1, np.nextafter(dtype(1), dtype(0)), 0.5, limits.tiny
    stub = getattr(elementary, which)
    function = of_two(stub) if "ratio" in which else of_one(stub)
    with mpmath.workprec(160):
        for x, y, got in zip(a.tolist(), b.tolist(), loop_of(function)(a, b).tolist(), strict=True):
            truth = {
                "ratio": lambda x, y: mpmath.log(mpmath.mpf(x) / y),
                "log": lambda x, _: mpmath.log(mpmath.mpf(x)),
                "log1p": lambda x, _: mpmath.log1p(mpmath.mpf(x)),
            }["ratio" if "ratio" in which else which.partition("_")[0]](x, y)
            unit = mpmath.ldexp(1, max(mpmath.frexp(abs(truth))[1] - limits.nmant - 1, -1074)) if truth else 0
            assert abs(got - truth) <= 2 * unit, (x, y)


# ---- edges --------------------------------------------------------------------------------------
EDGES: dict[str, tuple[list[Any], ...]] = {  # columns: p, q; rows' cross-entropy, KL, JS
    "0 log 0": ([1, 0], [1, 0], 0.0, 0.0, 0.0),
    "0 log q": ([0, 1], [0.5, 0.5], np.log(2), np.log(2), 0.75 * np.log(4 / 3)),
    "p log 0": ([0.5, 0.5], [1, 0], inf, inf, 0.75 * np.log(4 / 3)),
    "apart": ([1, 0], [0, 1], inf, inf, np.log(2)),
    "p below 0": ([-0.5, 1.5], [0.5, 0.5], nan, nan, nan),
    "q below 0": ([0.5, 0.5], [-0.5, 1.5], nan, nan, nan),
    "q below 0 at 0": ([0, 1], [-0.5, 1.5], nan, nan, nan),
    "NaN": ([nan, 1], [0.5, 0.5], nan, nan, nan),
    "NaN in q at 0": ([0, 1], [nan, 0.5], nan, nan, nan),
    "nothing": ([0, 0], [0, 0], 0.0, 0.0, 0.0),
    "q without p": ([0, 0], [0.5, 0], 0.0, 0.0, 0.25 * np.log(2)),
}  # fmt: skip


@pytest.mark.parametrize("columns", [2, 40, 5000])
def test_probabilities_of_every_kind(columns: int, dtype: type) -> None:
    p, q = (np.zeros((len(EDGES), columns), dtype) for _ in range(2))
    for i, (a, b, *_) in enumerate(EDGES.values()):
        p[i, -2:], q[i, -2:] = a, b
    expected = np.array([row[2:] for row in EDGES.values()])
    close = {"rtol": 4 * np.finfo(dtype).eps, "atol": 1e-30}
    np.testing.assert_allclose(fl.distribution_cross_entropy(p, q), expected[:, 0], **close)
    np.testing.assert_allclose(fl.kl_divergence(p, q), expected[:, 1], **close)
    np.testing.assert_allclose(fl.js_divergence(p, q), expected[:, 2], **close)
    np.testing.assert_allclose(fl.entropy(p), reference.entropy(p), **close)


def oddities(dtype: type) -> list[Any]:
    """Numbers that the formulas of ordinary ones may not see."""
    least = np.finfo(dtype).tiny
    below = np.nextafter(2 * least, dtype(0))
    return [0.0, -0.0, np.finfo(dtype).smallest_subnormal, least, below, -least, -1.0, inf, -inf, nan, -nan]


@pytest.mark.parametrize("name", PROBABILITIES)
def test_odd_probabilities_late_in_a_row(name: str, dtype: type, rng: Rng) -> None:
    """Among ordinary ones, in p, in q, or in both: what one number does is what it does in a short row."""
    odd, columns, at = oddities(dtype), 3 * 4096 + 100, 5001
    p, q = (rng.random((3 * len(odd), columns)).astype(dtype) + dtype(0.1) for _ in range(2))
    p[: len(odd), at] = p[len(odd) : 2 * len(odd), at] = odd
    q[2 * len(odd) :, at] = q[len(odd) : 2 * len(odd), at] = odd
    given = (p,) if name == "entropy" else (p, q)
    ours, alone = getattr(fl, name)(*given), getattr(fl, name)(*(each[:, at : at + 1] for each in given))
    rest = getattr(reference, name)(*(np.delete(each, at, axis=1).astype(np.float64) for each in given))
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(ours, rest + alone, rtol=16 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", PROBABILITIES)
def test_the_smallest_and_largest_ordinary_probabilities(name: str, dtype: type) -> None:
    limits, rows, columns = np.finfo(dtype), 2, 2 * 4096
    p, q = np.full((rows, columns), 2 * limits.tiny), np.full((rows, columns), 2 * limits.tiny)
    p[1] = limits.max / columns / 10_000  # all that they sum up to is finite
    q[:, ::3] *= 1.5
    given = (p.astype(dtype),) if name == "entropy" else (p.astype(dtype), q.astype(dtype))
    truth = getattr(reference, name)(*(each.astype(np.longdouble) for each in given))
    np.testing.assert_allclose(getattr(fl, name)(*given), truth.astype(dtype), rtol=16 * limits.eps)


@pytest.mark.parametrize("dtype", BOTH)
def test_what_is_ordinary(dtype: type, rng: Rng) -> None:
    """Finite, positive, and with a normal half: of LANES numbers one that is not is found wherever it is."""

    @numba.njit
    def all_are(x: Any) -> Any:
        seen = vector.lanes(vector.bits(x[0]))
        for j in range(0, x.size, vector.LANES):
            vector.note(seen, vector.part(x, j))
        return vector.ordinary(seen, x)

    limits = np.finfo(dtype)
    fine = [2 * limits.tiny, limits.max, 1.0]
    for k, value in enumerate(fine + oddities(dtype)):
        for at in rng.integers(0, 4 * vector.LANES, 5):
            x = rng.random(4 * vector.LANES).astype(dtype) + dtype(0.5)
            x[at] = value
            assert all_are(x) == (k < len(fine)), (value, at)


def test_information(dtype: type) -> None:
    p = np.array([0, 1, 0.5, -1, nan, inf, -0.0], dtype)
    wanted = [inf, 0, np.log(2), nan, nan, -inf, inf]
    np.testing.assert_allclose(fl.information_content(p), wanted, rtol=1e-7)
    same = p.copy()
    assert fl.information_content(same, base=2, out=same) is same
    np.testing.assert_array_equal(same, fl.information_content(p, base=2))
    assert isinstance(fl.information_content(dtype(0.5)), dtype)


@pytest.mark.parametrize("columns", [3, 40, 1500, 33_000])
def test_logits_of_every_kind(columns: int, dtype: type, rng: Rng) -> None:
    a, b = pair_of_logits(rng, (12, columns), dtype, {})
    a[1, 0], b[1, 0] = -inf, -inf  # adds nothing
    a[2, 0] = -inf
    b[3, 0] = -inf  # p > 0
    a[4, :], a[5, 1], a[6, 1] = -inf, nan, inf
    b[7, :], b[8, 1], b[9, 1] = -inf, nan, inf
    a[10, :-1], b[10, :-1] = -inf, -inf  # the same certain event
    a[11, 0], a[11, 1:], b[11, 1] = 1e4, 0, -inf  # p is 0 but by underflow
    bad = [4, 5, 6]
    either = [*bad, 7, 8, 9]
    h, kl, js = (
        fl.entropy_from_logits(a), fl.kl_divergence_from_logits(a, b), fl.js_divergence_from_logits(a, b)
    )
    assert np.isnan(h[bad]).all()
    assert np.isnan(kl[either]).all()
    assert np.isnan(js[either]).all()
    assert (h[10], kl[10], js[10]) == (0, 0, 0)
    assert kl[3] == kl[11] == inf
    good = [0, 1, 2, 3, 10, 11]
    tall = columns < 10_000
    if tall:
        wide = a.astype(np.longdouble), b.astype(np.longdouble)
        close = {"rtol": 64 * np.finfo(dtype).eps, "atol": np.finfo(dtype).tiny}
        good_h = np.setdiff1d(np.arange(12), bad)
        np.testing.assert_allclose(h[good_h], reference.entropy_from_logits(wide[0])[good_h], **close)
        for mine, name in ((kl, "kl_divergence_from_logits"), (js, "js_divergence_from_logits")):
            np.testing.assert_allclose(mine[good], getattr(reference, name)(*wide)[good], **close)
    u = np.ones(12, dtype)
    for op, args, rows in (
        (fl.entropy_from_logits, (a,), bad), (fl.kl_divergence_from_logits, (a, b), either),
        (fl.js_divergence_from_logits, (a, b), either),
    ):
        grads = op.vjp(*args, u)
        for x, grad in zip(args, grads if len(args) == 2 else (grads,), strict=True):
            assert np.isnan(grad[rows]).all()
            fine = np.setdiff1d(np.arange(12), rows)
            finite = fine if op is not fl.kl_divergence_from_logits or x is b else [0, 1, 2, 10]
            assert np.isfinite(grad[finite]).all()
            assert (grad[fine][x[fine] == -inf] == 0).all() or (op is fl.kl_divergence_from_logits and x is b)
            assert (grad[10][:-1] == 0).all()
            assert grad[10, -1] == 0
    # The same rows alone give the same.
    for i in range(12):
        assert np.array_equal(fl.entropy_from_logits(a[i]), h[i], equal_nan=True)
        assert np.array_equal(fl.kl_divergence_from_logits(a[i], b[i]), kl[i], equal_nan=True)
        assert np.array_equal(fl.js_divergence_from_logits(a[i], b[i]), js[i], equal_nan=True)


@pytest.mark.parametrize("name", ROWS)
def test_no_rows_and_one_class(name: str, dtype: type) -> None:
    op = getattr(fl, name)
    count = len(arguments(name, np.random.default_rng(0), (2, 2), dtype))
    empty, one = (np.empty((0, 5), dtype),) * count, (np.ones((3, 1), dtype),) * count
    assert np.isnan(op(*empty, reduction="mean"))
    assert op(*empty, reduction="sum") == 0
    assert op(*empty).shape == (0,)
    assert op(*one).tolist() == [0, 0, 0]
    assert isinstance(op(*one, reduction="mean"), dtype)
    assert op(*(dtype(1),) * count, axis=None) == 0
    with pytest.raises(ValueError, match="no classes"):
        op(*(np.empty((5, 0), dtype),) * count)
    with pytest.raises(ValueError, match="is 0-d"):
        op(*(dtype(1),) * count)


def test_huge_logits(dtype: type) -> None:
    big = dtype(1e30)
    a, b = np.array([big, -big, 0], dtype), np.array([big, big, -big], dtype)
    assert fl.entropy_from_logits(a) == 0
    np.testing.assert_allclose(fl.entropy_from_logits(b), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(fl.kl_divergence_from_logits(a, b), np.log(2), rtol=1e-6)
    shift = np.array([3, 1, 2], dtype)
    moved = shift + dtype(2.0**20)
    assert np.array_equal(fl.entropy_from_logits(moved), fl.entropy_from_logits(shift))
    assert fl.kl_divergence_from_logits(moved, shift) == 0
    assert fl.js_divergence_from_logits(moved, shift) < 1e-13


def test_temperatures_that_float64_computes(rng: Rng) -> None:
    a, b = pair_of_logits(rng, (3, 9), np.float32, {})
    for op in (fl.kl_divergence_from_logits, fl.js_divergence_from_logits):
        for t in (1e-20, 1e20):
            wide = op(a.astype(np.float64), b.astype(np.float64), temperature=t).astype(np.float32)
            assert np.array_equal(op(a, b, temperature=t), wide)


# ---- laws ---------------------------------------------------------------------------------------
def test_laws(dtype: type, rng: Rng) -> None:
    eps = np.finfo(dtype).eps
    a, b = pair_of_logits(rng, (20, 300), dtype, {})
    p, q = fl.softmax(a / 3), fl.softmax(b / 3)
    h, cross, kl, js = fl.entropy(p), fl.distribution_cross_entropy(p, q), fl.kl_divergence(p, q), None
    np.testing.assert_allclose(cross, h + kl, rtol=16 * eps)
    assert (kl >= 0).all()
    assert (h <= np.log(300) * (1 + 4 * eps)).all()
    js = fl.js_divergence(p, q)
    assert np.array_equal(js, fl.js_divergence(q, p))
    assert (js <= np.log(2) * (1 + 4 * eps)).all()
    assert (fl.js_divergence(p, p) == 0).all()
    assert (fl.kl_divergence(p, p) == 0).all()
    assert (fl.entropy(np.full((2, 256), 1 / 256, dtype), base=2) == 8).all()
    a, b = a / 3, b / 3
    rounded: dict[str, Any] = {"rtol": 64 * eps, "atol": 8 * eps}  # probabilities are
    np.testing.assert_allclose(fl.entropy_from_logits(a), h, **rounded)
    np.testing.assert_allclose(fl.kl_divergence_from_logits(a, b), kl, **rounded)
    left, right = fl.js_divergence_from_logits(a, b), fl.js_divergence_from_logits(b, a)
    np.testing.assert_allclose(left, js, **rounded)
    np.testing.assert_allclose(left, right, rtol=4 * eps)
    for op in (fl.kl_divergence_from_logits, fl.js_divergence_from_logits):
        for t in (0.3, 1.0, 20.0):
            assert (op(a, a, temperature=t) == 0).all()
            near = op(a, a + dtype(1e-3) * b, temperature=t)
            assert (near > 0).all()
            for grad in op.vjp(a, a, np.ones(20, dtype), temperature=t):
                assert abs(grad).max() <= 4 * eps
    y = rng.integers(0, 300, 20)
    one_hot = np.eye(300, dtype=dtype)[y]
    np.testing.assert_allclose(
        fl.distribution_cross_entropy(one_hot, fl.softmax(a)), fl.cross_entropy(a, y, reduction="none"),
        rtol=32 * eps,
    )
    for name in ROWS:
        op, args = getattr(fl, name), (a, b) if "logits" in name else (p, q)
        args = args[: 1 if name.startswith("entropy") else 2]
        rows = op(*args)
        np.testing.assert_allclose(op(*args, base=10), rows / np.log(10), rtol=4 * eps)
        np.testing.assert_allclose(op(*args, reduction="mean"), rows.mean(dtype=float), rtol=2 * eps)
        np.testing.assert_allclose(op(*args, reduction="sum"), rows.sum(dtype=float), rtol=2 * eps)


def test_distributions_near_each_other_keep_their_digits(dtype: type, rng: Rng) -> None:
    """Where the sum of p log(p/q) would have none left."""
    a = rng.normal(0, 1, (5, 200)).astype(dtype)
    for size in (1e-2, 1e-3):
        b = (a + size * rng.normal(0, 1, a.shape)).astype(dtype)
        wide = a.astype(np.longdouble), b.astype(np.longdouble)
        truth = reference.kl_divergence_from_logits(*wide)
        ours, eps = fl.kl_divergence_from_logits(a, b), np.finfo(dtype).eps
        np.testing.assert_allclose(ours, truth, rtol=8 * eps / size)
        p, q = fl.softmax(a), fl.softmax(b)
        m = (p.astype(np.longdouble) + q) / 2
        t = (p.astype(np.longdouble) - q) / (2 * m)
        truth = (m / 2 * sum(t ** (2 * k) / (k * (2 * k - 1)) for k in range(1, 9))).sum(-1)
        np.testing.assert_allclose(fl.js_divergence(p, q), truth, rtol=4 * eps)


@pytest.mark.parametrize("name", ROWS)
def test_axes(name: str, dtype: type, rng: Rng) -> None:
    op = getattr(fl, name)
    args = arguments(name, rng, (3, 4, 5), dtype)
    for axis in (0, 1, -2, (0, 2), (2, 1), None):
        axes = tuple(range(3)) if axis is None else axis
        at = (axes,) if isinstance(axes, int) else axes
        flat = [np.moveaxis(a, at, range(-len(at), 0)) for a in args]
        flat = [np.ascontiguousarray(f).reshape(*f.shape[: 3 - len(at)], -1) for f in flat]
        ours, plain = op(*args, axis), op(*flat)
        if at == tuple(sorted(at)):
            assert np.array_equal(ours, plain), axis
        np.testing.assert_allclose(ours, plain, rtol=8 * np.finfo(dtype).eps)


# ---- derivatives --------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"reduction": "mean", "base": 2}, {"axis": 0, "reduction": "sum"}])
@pytest.mark.parametrize("name", LOGITS)
def test_vjp_is_the_limit_of_differences(name: str, options: dict[str, Any], rng: Rng) -> None:
    op = getattr(fl, name)
    args = [rng.normal(0, 1, (3, 4)) for _ in arguments(name, rng, (2, 2), np.float64)]
    for t in (0.6, 1.0, 3.0) if len(args) == 2 else (None,):
        chosen = options if t is None else {**options, "temperature": t}
        u = rng.normal(size=np.shape(op(*args, **chosen)))
        grads = op.vjp(*args, u, **chosen)
        for k, grad in enumerate(grads if len(args) == 2 else (grads,)):

            def f(v: Any, k: int = k, u: Any = u, chosen: Any = chosen) -> Any:
                return np.sum(u * op(*args[:k], v, *args[k + 1 :], **chosen))

            numeric = reference.numerical_gradient(f, args[k], step=1e-3)
            np.testing.assert_allclose(grad, numeric, rtol=1e-7, atol=1e-9)


def test_maxima_that_are_met_again_blocks_later(rng: Rng) -> None:
    """The gradient of q is q - p; at the maxima, of which there are two, that is small beside both."""
    p, q = rng.standard_normal((2, 4, 5000)).astype(np.float32)
    for at in (0, 2047, 4999):
        p[:, at] = q[:, at] = 24
    e, f = (np.exp(z.astype(np.longdouble) - 24) for z in (p, q))
    s, z = e.sum(axis=1, keepdims=True), f.sum(axis=1, keepdims=True)
    truth = (f * s - e * z) / (s * z)
    ours = fl.kl_divergence_from_logits.vjp(p, q, np.ones(4))[1]
    size = np.abs(truth).max(axis=1, keepdims=True)
    assert np.all(np.abs(ours - truth) <= 32 * np.finfo(np.float32).eps * size)


@pytest.mark.parametrize("name", LOGITS[1:])
def test_pairs_of_outputs(name: str, dtype: type, rng: Rng) -> None:
    op = getattr(fl, name)
    a, b = pair_of_logits(rng, (5, 1100), dtype, {})
    u = rng.normal(size=5).astype(dtype)
    plain = op.vjp(a, b, u, temperature=1.7)
    for order in ((0, 1), (1, 0)):
        x, y = a.copy(), b.copy()
        out = ((x, y)[order[0]], (x, y)[order[1]])
        got = op.vjp(x, y, u, temperature=1.7, out=out)
        assert got[0] is out[0]
        assert got[1] is out[1]
        assert all(map(np.array_equal, got, plain)), order
    memory = np.concatenate([a.ravel(), np.zeros(9, dtype)])
    x, late = memory[: a.size].reshape(a.shape), memory[5 : 5 + a.size].reshape(a.shape)
    got = op.vjp(x, b, u, temperature=1.7, out=(None, late))  # overlaps in part
    assert all(map(np.array_equal, got, plain))


# ---- bits ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(7, 11), (5, 1003), (3, 70_001)])
@pytest.mark.parametrize("name", ROWS)
def test_bits_depend_on_the_row_alone(name: str, shape: tuple[int, int], dtype: type, rng: Rng) -> None:
    op = getattr(fl, name)
    args = arguments(name, rng, shape, dtype)
    rows = op(*args)
    with fl.num_threads(1):
        assert np.array_equal(op(*args), rows)
    assert np.array_equal([op(*(a[i] for a in args)) for i in range(shape[0])], rows)
    many = op(*(np.concatenate([a] * 40) for a in args)) if shape[1] < 2000 else rows
    assert np.array_equal(many[-shape[0] :], rows)
    assert np.array_equal(op(*map(np.asfortranarray, args)), rows)
    assert np.array_equal(op(*(a.T for a in args), axis=0), rows)
    for same in layouts(args[0]).values():
        assert np.array_equal(op(same, *args[1:]), rows)
    if name in LOGITS:
        u = rng.normal(size=shape[0]).astype(dtype)
        grads = op.vjp(*args, u)
        with fl.num_threads(1):
            again = op.vjp(*(np.asfortranarray(a) for a in args), u)
        assert np.array_equal(grads, again)


def test_long_rows(dtype: type, rng: Rng) -> None:
    """Of many segments, shared among the threads."""
    for name in ROWS:
        args = arguments(name, rng, (1, 1_100_000), dtype)
        wide = [a.astype(np.longdouble) for a in args]
        textbook = getattr(reference, name)(*args)  # in float64
        assert_close(getattr(fl, name)(*args), getattr(reference, name)(*wide), textbook, None, name)


# ---- bad input ----------------------------------------------------------------------------------
X = np.full((3, 4), 0.25)
U = X[:, 0]
BAD: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "broadcast": (lambda _: fl.kl_divergence(X, X[:1]), ValueError, r"q has shape \(1, 4\)"),
    "complex": (lambda _: fl.entropy(X * 1j), TypeError, "p has dtype complex"),
    "base of 1": (lambda o: fl.information_content(X, base=1, out=o), ValueError, "base must be"),
    "base of 0": (lambda o: fl.information_content(X, base=0, out=o), ValueError, "base must be"),
    "base inf": (lambda _: fl.entropy(X, base=inf), ValueError, "base must be"),
    "base text": (lambda _: fl.entropy(X, base="e"), TypeError, "base must be a real number"),
    "reduction": (
        lambda o: fl.entropy_from_logits.vjp(X, U, reduction="max", out=o), ValueError, "reduction must"
    ),
    "temperature": (
        lambda o: fl.kl_divergence_from_logits.vjp(X, X, U, temperature=0, out=(o, None)), ValueError,
        "temperature must",
    ),
    "cotangent": (lambda o: fl.entropy_from_logits.vjp(X, X[0], out=o), ValueError, "cotangent has shape"),
    "scalar": (
        lambda o: fl.entropy_from_logits.vjp(X, U, reduction="sum", out=o), ValueError, "cotangent has shape"
    ),
    "out": (lambda o: fl.entropy_from_logits.vjp(X, U, out=o[:2]), ValueError, "out has shape"),
    "one out": (
        lambda o: fl.js_divergence_from_logits.vjp(X, X, U, out=o), TypeError, "out must be a pair"
    ),
    "out twice": (lambda o: fl.js_divergence_from_logits.vjp(X, X, U, out=(o, o)), ValueError, "overlap"),
    "q_logits": (
        lambda o: fl.js_divergence_from_logits.vjp(X, X[0], U, out=(o, None)), ValueError,
        "q_logits has shape",
    ),
    "axis": (lambda _: fl.entropy(X, axis=2), np.exceptions.AxisError, "axis 2"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_named_and_nothing_is_written(bad: str) -> None:
    call, error, message = BAD[bad]
    out = np.full((3, 4), 7.0)
    with pytest.raises(error, match=message):
        call(out)
    assert (out == 7).all()


def test_other_types(rng: Rng) -> None:
    p, q = arguments("kl_divergence", rng, (3, 9), np.float32)
    assert fl.kl_divergence(p, q.astype(np.float64)).dtype == np.float32
    assert np.array_equal(fl.kl_divergence(p, q.astype(np.float64)), fl.kl_divergence(p, q))
    assert fl.entropy([[1, 0], [0, 1]]).tolist() == [0, 0]
    assert fl.entropy_from_logits(np.array([[True, False]])).dtype == np.float64
    a, b = pair_of_logits(rng, (3, 9), np.float32, {})
    grads = fl.kl_divergence_from_logits.vjp(a, b.astype(np.float64), np.ones(3))
    assert all(g.dtype == np.float32 for g in grads)


# ---- peers --------------------------------------------------------------------------------------
def test_pytorch_agrees(rng: Rng) -> None:
    torch = pytest.importorskip("torch")
    x, y = pair_of_logits(rng, (6, 50), np.float64, {})
    a, b = torch.tensor(x, requires_grad=True), torch.tensor(y, requires_grad=True)
    p, q = torch.log_softmax(a, -1), torch.log_softmax(b, -1)
    kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean")
    kl.backward()
    close: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-14}
    np.testing.assert_allclose(fl.kl_divergence_from_logits(x, y, reduction="mean"), kl.item(), **close)
    grads = fl.kl_divergence_from_logits.vjp(x, y, 1.0, reduction="mean")
    for ours, theirs in zip(grads, (a.grad, b.grad), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), **close)
    c = torch.tensor(x, requires_grad=True)
    h = torch.distributions.Categorical(logits=c).entropy()
    h.sum().backward()
    np.testing.assert_allclose(fl.entropy_from_logits(x), h.detach().numpy(), **close)
    np.testing.assert_allclose(fl.entropy_from_logits.vjp(x, np.ones(6)), c.grad.numpy(), **close)


def test_scipy_agrees(rng: Rng) -> None:
    stats, special = pytest.importorskip("scipy.stats"), pytest.importorskip("scipy.special")
    distance = pytest.importorskip("scipy.spatial.distance")
    p, q = arguments("kl_divergence", rng, (6, 50), np.float64)
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    close: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-15}
    for base in (None, 2, 10):
        np.testing.assert_allclose(fl.entropy(p, base=base), stats.entropy(p, base=base, axis=-1), **close)
        np.testing.assert_allclose(
            fl.kl_divergence(p, q, base=base), stats.entropy(p, q, base=base, axis=-1), **close
        )
        theirs = distance.jensenshannon(p, q, base=base, axis=-1) ** 2
        np.testing.assert_allclose(fl.js_divergence(p, q, base=base), theirs, **close)
    np.testing.assert_allclose(fl.kl_divergence(p, q), special.rel_entr(p, q).sum(-1), **close)
    np.testing.assert_allclose(fl.entropy(p), special.entr(p).sum(-1), **close)
