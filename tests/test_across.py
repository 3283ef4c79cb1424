"""A row's bits do not depend on which walk it meets: along the row, or across LANES rows at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import mpmath
import numba
import numpy as np
import pytest

import fastloss as fl
from fastloss import reference
from fastloss._engine import across, again, blocks, classes, elementary, launch, threads, transpose

Rng = np.random.Generator
# Columns about the ends of registers, of what is transposed, of blocks and of segments.
COLUMNS = (2, 4, 10, 16, 31, 33, 64, 128, 129, 160, 384, 385, 1000, 1024, 1025, 1500, 33_000)
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rows": lambda x: x,
    "columns": np.asfortranarray,
    "upside down": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "strided": lambda x: np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3],
    "swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "unaligned": lambda x: _unaligned(x),
    "swapped columns": lambda x: np.asfortranarray(x.astype(x.dtype.newbyteorder())),
}  # fmt: skip


def _unaligned(x: np.ndarray) -> np.ndarray:
    y = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


def _logits(rng: Rng, columns: int, dtype: type) -> np.ndarray:
    """Rows with ties, with -inf here, there and everywhere, with +inf, with NaN; not a multiple of LANES."""
    n = 300 if 128 < columns <= 384 else 70 if columns < 2000 else 34
    x = rng.normal(0, 6, (n, columns)).astype(dtype)
    x[: n // 2] = np.round(x[: n // 2])
    x[1:9][rng.random((8, columns)) < 0.5] = -np.inf
    x[9:12, : columns // 2 + 1] = -np.inf
    x[12] = -np.inf
    x[13, rng.integers(columns)] = np.inf
    x[14, rng.integers(columns)] = np.nan
    return x


@pytest.mark.parametrize("columns", COLUMNS)
def test_bits_are_those_of_the_walk_along_rows(
    columns: int, dtype: type, rng: Rng, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = _logits(rng, columns, dtype)
    n = len(x)
    y = rng.integers(columns, size=n)
    y[::7] = -100
    weight, sample_weight = rng.random(columns), rng.random(n)
    calls: dict[str, Callable[[np.ndarray], Any]] = {
        "softmax": lambda x: fl.softmax(x, temperature=0.7),
        "log_softmax": fl.log_softmax,
        "logsumexp": fl.logsumexp,
        "logsumexp.vjp": lambda x: fl.logsumexp.vjp(x, sample_weight),
        "cross_entropy": lambda x: fl.cross_entropy(x, y, reduction="none", temperature=3.0),
        "value_and_grad": lambda x: fl.cross_entropy.value_and_grad(
            x, y, weight=weight, sample_weight=sample_weight
        )[1],
        "axis 0": lambda x: fl.softmax(x.T, axis=0),
        "temperature_grad": lambda x: np.stack(
            fl.cross_entropy.temperature_grad(x, y, temperature=0.7, weight=weight, reduction="none")
        ),
        "scale_grad": lambda x: np.stack(
            fl.additive_margin_softmax_loss.scale_grad(x, y, scale=0.3, reduction="none")
        ),
        "into columns": lambda x: fl.softmax(x, out=np.empty((columns, n), dtype).T),
        "in place": lambda x: fl.softmax(z := x.astype(dtype, order="K"), out=z),
        "gradient in place": lambda x: fl.cross_entropy.grad(z := x.astype(dtype, order="K"), y, out=z),
    }
    for name in ("additive_margin_softmax_loss", "arcface_loss", "lse_hinge_loss", "focal_loss"):
        op = getattr(fl, name)
        calls[name] = lambda x, op=op: op(x, y, weight=weight, reduction="none")
        calls[f"{name}.grad"] = lambda x, op=op: op.grad(x, y, weight=weight, sample_weight=sample_weight)
        calls[f"{name} in place"] = lambda x, op=op: op.grad(z := x.astype(dtype, order="K"), y, out=z)
    plan_of, walks = across.plan_of, []

    def counted(*args: Any, **options: Any) -> Any:
        walks.append(plan := plan_of(*args, **options))
        return plan

    for name, call in calls.items():
        monkeypatch.setattr(across, "plan_of", lambda *_, **__: None)
        expected = call(x)
        monkeypatch.setattr(across, "plan_of", counted)
        for layout, lay in LAYOUTS.items():
            again._own.made.clear()  # no walk is to be made again
            z = lay(x)
            assert np.array_equal(z, x, equal_nan=True)
            got = call(z)
            assert np.array_equal(got, expected, equal_nan=True), (name, layout)
            finite = ~np.isnan(expected)
            assert np.array_equal(np.signbit(got[finite]), np.signbit(expected[finite])), (name, layout)
    met = [walk for walk in walks if walk is not None]
    alone = re.compile("margin|arcface|hinge|focal|scale|temperature")  # only of short rows
    two = re.compile("^(cross_entropy|value_and_grad|temperature_grad|gradient in place)$")  # see `two`
    those = [bool(alone.search(name)) for name in calls if not (columns == 2 and two.search(name))]
    beside, flat, layouts = 2, 3, len(LAYOUTS)
    if columns > across.SHORTER:
        flat *= columns <= across.SHORT * 4 // np.dtype(dtype).itemsize
        layouts = beside + flat
    assert len(met) >= those.count(False) * layouts + those.count(True) * (
        layouts if columns <= across.SHORTER else flat
    )


@pytest.mark.parametrize("columns", [2, 10, 40, 200])
def test_losses_are_summed_alike_however_they_are_made(columns: int, rng: Rng) -> None:
    n = 3001 if columns < 128 else 1001
    x, y = rng.normal(0, 3, (n, columns)), rng.integers(columns, size=n)
    y[5:9] = -100
    total = fl.cross_entropy(x, y, reduction="sum")
    assert total == across.summed(fl.cross_entropy(x, y, reduction="none"), x[0].nbytes)
    assert total == fl.cross_entropy.value_and_grad(x, y, reduction="sum")[0]
    weighted = fl.cross_entropy(x, y, reduction="sum", sample_weight=np.ones(n))
    assert total == weighted == fl.cross_entropy(np.asfortranarray(x), y, reduction="sum")


def test_many_rows_of_one_column(dtype: type, rng: Rng) -> None:
    x = rng.normal(0, 3, (40_000, 1)).astype(dtype)
    x[5:8, 0] = np.inf, -np.inf, np.nan
    assert np.array_equal(fl.logsumexp(x), x[:, 0], equal_nan=True)
    losses = fl.cross_entropy(x, np.zeros(len(x), np.int64), reduction="none")
    assert np.array_equal(np.isnan(losses), ~np.isfinite(x[:, 0]))
    assert not losses[np.isfinite(x[:, 0])].any()


@pytest.mark.parametrize("columns", [1, 3, 21, 200, 1030])
def test_channels_of_an_image(columns: int, dtype: type, rng: Rng) -> None:
    """(N, V, H, W): classes in the middle, runs of rows that are no multiple of LANES."""
    x = rng.normal(0, 3, (3, columns, 7, 11)).astype(dtype)
    y = rng.integers(columns, size=(3, 7, 11))
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    assert np.array_equal(fl.softmax(x, axis=1), np.moveaxis(fl.softmax(last), -1, 1))
    assert np.array_equal(fl.logsumexp(x, axis=1), fl.logsumexp(last))
    loss, grad = fl.cross_entropy.value_and_grad(x, y, axis=1)
    there, expected = fl.cross_entropy.value_and_grad(last, y)
    assert loss == there
    assert np.array_equal(grad, np.moveaxis(expected, -1, 1))


@pytest.mark.parametrize(("columns", "inner"), [(3, 700), (21, 640), (50, 16384), (130, 300), (390, 200)])
def test_images_past_the_cache(
    columns: int, inner: int, dtype: type, rng: Rng, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of rows side by side, whole groups or not, of columns that collide in a cache or not, by a worker
    and by three: the bits of rows one after the other, and nothing beside them.
    """
    monkeypatch.setattr(launch, "WORTHWHILE", 2)
    x = rng.normal(0, 3, (2, columns, inner)).astype(dtype)
    y, last = rng.integers(-1, columns, (2, inner)), np.ascontiguousarray(np.moveaxis(x, 1, -1))
    if columns == 390:
        x[0, 5, 3], last[0, 3, 5] = np.inf, np.inf
    for call in (
        lambda x, axis, out=None: fl.softmax(x, axis=axis, out=out),
        lambda x, axis, out=None: fl.log_softmax(x, axis=axis, out=out),
        lambda x, axis, out=None: fl.cross_entropy.grad(x, y, axis=axis, ignore_index=-1, out=out),
    ):
        monkeypatch.setattr(blocks, "STREAMED", 1 << 60)
        expected = np.moveaxis(call(last, -1), -1, 1)
        monkeypatch.setattr(blocks, "STREAMED", 0)
        for count, start in ((1, 0), (3, 5)):
            monkeypatch.setattr(threads, "count", lambda n=count: n)
            memory = np.full(x.size + 80, 7, dtype)
            first = start + -memory.ctypes.data % 64 // memory.itemsize
            out = memory[first : first + x.size].reshape(x.shape)
            assert np.array_equal(call(x, 1, out), expected, equal_nan=True)
            assert (memory[:first] == 7).all()
            assert (memory[first + x.size :] == 7).all()
    for reduction in ("mean", "none"):
        loss = fl.cross_entropy(x, y, axis=1, ignore_index=-1, reduction=reduction)
        there = fl.cross_entropy(last, y, ignore_index=-1, reduction=reduction)
        assert np.array_equal(loss, there, equal_nan=True)


@pytest.mark.parametrize("n", [32, 100, 600])
@pytest.mark.parametrize("columns", [200, 1030])
def test_results_go_past_the_cache_wherever_they_lie(
    columns: int, n: int, dtype: type, rng: Rng, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns of results that start on a cache line or not, and nothing beside them."""
    monkeypatch.setattr(blocks, "STREAMED", 0)
    x = rng.normal(0, 3, (columns, n)).astype(dtype)
    y = rng.integers(-1, columns, n)  # some are ignored
    for call in (
        lambda out: fl.softmax(x, axis=0, out=out),
        lambda out: fl.log_softmax(x, axis=0, out=out),
        lambda out: fl.cross_entropy.grad(x, y, axis=0, ignore_index=-1, out=out),
    ):
        expected = call(None)
        for start in (0, 1, 7):
            memory = np.full(start + columns * n + 40, 7, dtype)
            out = memory[start : start + columns * n].reshape(columns, n)
            assert np.array_equal(call(out), expected)
            assert (memory[:start] == 7).all()
            assert (memory[start + columns * n :] == 7).all()


@pytest.mark.parametrize("columns", [2, 3, 8, 10])
@pytest.mark.parametrize("n", [100, 2000])
def test_gradients_of_few_classes_go_past_the_cache(
    n: int, columns: int, dtype: type, rng: Rng, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a cache line on straight from registers, else piece by piece; and nothing beside them."""
    x, y = rng.normal(0, 3, (n, columns)).astype(dtype), rng.integers(-1, columns, n)
    for options in ({}, {"sample_weight": rng.random(n)}, {"weight": np.zeros(columns)}):
        expected = fl.cross_entropy.grad(x, y, ignore_index=-1, **options)
        monkeypatch.setattr(blocks, "STREAMED", 0)
        for start in (0, 2, 5):
            memory = np.full(columns * n + 60, 7, dtype)
            first = start + -memory.ctypes.data % 64 // memory.itemsize
            out = memory[first : first + columns * n].reshape(n, columns)
            assert np.array_equal(fl.cross_entropy.grad(x, y, ignore_index=-1, out=out, **options), expected)
            assert (memory[:first] == 7).all()
            assert (memory[first + columns * n :] == 7).all()
        monkeypatch.undo()


PRODUCTS: dict[str, Callable[..., Any]] = {
    "softmax.jvp": lambda x, t, **o: fl.softmax.jvp(x, t, temperature=0.7, **o),
    "log_softmax.jvp": fl.log_softmax.jvp,
    "log_softmax.vjp": lambda x, t, **o: fl.log_softmax.vjp(x, t, temperature=3.0, **o),
    "softmax.vjp_from_output": lambda x, t, **o: fl.softmax.vjp_from_output(np.exp2(x), t, **o),
    "log_softmax.vjp_from_output": fl.log_softmax.vjp_from_output,
    "logsumexp.jvp": fl.logsumexp.jvp,
}


@pytest.mark.parametrize("columns", [1, 2, 10, 31, 33, 128])
def test_products_of_short_rows_wherever_they_lie(columns: int, dtype: type, rng: Rng) -> None:
    """Alone, in batches that are full or not, in any layout, in place: the same bits."""
    x = _logits(rng, columns, dtype)
    t = rng.normal(0, 1, x.shape).astype(dtype)
    t[20:24] = np.round(t[20:24, :1])  # constant: products that are 0
    t[24:28] *= 1e-3
    t[24:28] += 1.0  # nearly so: rows that are made again
    for name, product in PRODUCTS.items():
        expected = np.concatenate([product(x[i : i + 1], t[i : i + 1]) for i in range(len(x))])

        def same(got: np.ndarray, expected: np.ndarray, what: str, name: str = name) -> None:
            assert np.array_equal(got, expected, equal_nan=True), (name, what)

        for layout, lay in LAYOUTS.items():
            same(product(lay(x), t), expected, layout)
            same(product(x, lay(t)), expected, layout)
            same(product(lay(x), lay(t)), expected, layout)
        same(product(x.T, t.T, axis=0), expected.T, "axis 0")
        same(product(x[:5], t[:5]), expected[:5], "few")
        if name == "logsumexp.jvp":
            continue
        for memory in (x, t):  # "upside down" and "from output" make arrays of their own
            z = memory.copy()
            same(product(*(z if a is memory else a for a in (x, t)), out=z), expected, "in place")
        out = np.full((len(x) + 2, columns + 3), 7, dtype)
        same(product(x, t, out=out[1:-1, 1:-2]), expected, "strided out")
        assert (out[0] == 7).all()
        assert (out[-1] == 7).all()
        assert (out[:, 0] == 7).all()
        assert (out[:, -2:] == 7).all()
    for run in (2, 8, 31):  # runs of rows too short for a batch
        pair = [
            np.ascontiguousarray(a[:62].reshape(-1, run, columns).transpose(0, 2, 1)) if 62 % run == 0 else
            np.ascontiguousarray(a[:64].reshape(-1, run, columns).transpose(0, 2, 1)) for a in (x, t)
        ]
        pair = [np.repeat(a, 2, 0)[::2] for a in pair]
        there = fl.softmax.jvp(*pair, axis=1).transpose(0, 2, 1).reshape(-1, columns)
        assert np.array_equal(there, fl.softmax.jvp(x[: len(there)], t[: len(there)]), equal_nan=True), run
        mean = fl.logsumexp.jvp(*pair, axis=1).reshape(-1)
        assert np.array_equal(mean, fl.logsumexp.jvp(x[: len(there)], t[: len(there)]), equal_nan=True), run
    image = [np.ascontiguousarray(a[:66].reshape(2, 3, 11, columns).transpose(0, 3, 1, 2)) for a in (x, t)]
    there = fl.softmax.vjp(*image, axis=1).transpose(0, 2, 3, 1).reshape(66, columns)
    assert np.array_equal(there, fl.softmax.vjp(x[:66], t[:66]), equal_nan=True)


@pytest.mark.parametrize("columns", [1, 2, 10, 33, 128])
def test_hinges_of_short_rows_wherever_they_lie(columns: int, dtype: type, rng: Rng) -> None:
    """Alone, in batches that are full or not, in any layout, in place: the same bits."""
    x = _logits(rng, columns, dtype)
    y = rng.integers(0, columns, len(x))
    y[::7] = -100
    each: dict[str, Any] = {"reduction": "none"}
    for op, options in (
        (fl.multiclass_hinge_loss, each), (fl.multiclass_hinge_loss, {**each, "squared": True}),
        (fl.max_hinge_loss, each),
    ):
        alone = [op.value_and_grad(x[i : i + 1], y[i : i + 1], **options) for i in range(len(x))]
        losses, grads = (np.concatenate(part) for part in zip(*alone, strict=True))
        assert np.array_equal(op(x, y, **options), losses, equal_nan=True)
        for layout, lay in LAYOUTS.items():
            value, grad = op.value_and_grad(lay(x), y, **options)
            assert np.array_equal(value, losses, equal_nan=True), (op, layout)
            assert np.array_equal(grad, grads, equal_nan=True), (op, layout)
        value, grad = op.value_and_grad(x.T, y, axis=0, **options)
        assert np.array_equal(value, losses, equal_nan=True), op
        assert np.array_equal(grad.T, grads, equal_nan=True), op
        z = x.copy()
        assert op.value_and_grad(z, y, out=z, **options)[1] is z
        assert np.array_equal(z, grads, equal_nan=True), op
        image = np.ascontiguousarray(x[:66].reshape(2, 3, 11, columns).transpose(0, 3, 1, 2))
        there = op.grad(image, y[:66].reshape(2, 3, 11), axis=1, **options)
        there = there.transpose(0, 2, 3, 1).reshape(66, columns)
        assert np.array_equal(there, grads[:66], equal_nan=True), op


def test_an_infinite_weight_elsewhere(rng: Rng) -> None:
    x = rng.normal(0, 3, (40, 5))
    grad = fl.cross_entropy.grad(x, np.zeros(40, int), weight=[1, 2, 3, 4, np.inf], reduction="sum")
    assert np.array_equal(grad, fl.cross_entropy.grad(x, np.zeros(40, int), reduction="sum"))
    alone = fl.cross_entropy.grad(x[:1], [0], weight=[1, 2, 3, 4, np.inf], reduction="sum")
    assert np.array_equal(alone, grad[:1])


@pytest.mark.parametrize("n", [32, 33, 64, 97])
def test_any_number_of_rows(n: int, dtype: type, rng: Rng) -> None:
    """Rows of a batch that is not full are written, and nothing beyond them."""
    for columns in (2, 10, 40):
        x = rng.normal(0, 3, (n, columns)).astype(dtype)
        memory = np.full((n + 64) * columns, 7, dtype)
        out = memory[32 * columns : (32 + n) * columns].reshape(n, columns)
        fl.softmax(x, out=out)
        alone = np.concatenate([fl.softmax(x[i : i + 1]) for i in range(n)])
        assert np.array_equal(out, alone)
        assert (memory[: 32 * columns] == 7).all()
        assert (memory[(32 + n) * columns :] == 7).all()


@pytest.mark.parametrize("length", [*range(1, 18), 33, 128])
def test_transposing(length: int, dtype: type, rng: Rng) -> None:
    count, line = 64, 64 // np.dtype(dtype).itemsize
    x = rng.random(count * length + line).astype(dtype)
    columns = np.empty((-(-length // line) * line, count), dtype)
    back = np.empty_like(x)
    _to_columns(x.ctypes.data, length, count, columns.ctypes.data, dtype(0))
    _to_rows(columns.ctypes.data, length, count, back.ctypes.data, dtype(0))
    rows = x[: count * length].reshape(count, length)
    assert np.array_equal(columns[:length], rows.T)
    assert np.array_equal(back[: count * length].reshape(count, length), rows)
    if 3 <= length <= line:
        memory = np.full(count * length + 3 * line, 7, dtype)
        first = line + -memory.ctypes.data % 64 // memory.itemsize
        past = memory[first : first + count * length]
        _to_rows_past(columns.ctypes.data, length, count, past.ctypes.data, dtype(0))
        assert np.array_equal(past.reshape(count, length), rows)
        assert (memory[:first] == 7).all()
        assert (memory[first + count * length :] == 7).all()


@numba.njit
def _to_columns(rows: int, length: int, count: int, columns: int, like: Any) -> None:
    transpose.to_columns(rows, length, count, columns, 0, like)


@numba.njit
def _to_rows(columns: int, length: int, count: int, rows: int, like: Any) -> None:
    transpose.to_rows(columns, length, count, rows, like)


@numba.njit
def _to_rows_past(columns: int, length: int, count: int, rows: int, like: Any) -> None:
    transpose.to_rows_past(columns, length, count, rows, like)


def test_log1p(rng: Rng) -> None:
    """Within an ulp of mpmath's, from subnormal numbers to 1e300; the short one to 2e-10."""
    edges = [0.0, 5e-324, 1e-310, 2.0**-53, 2**0.5 - 1, 1.0, 2 * 2**0.5 - 1, 2.0**53, 1e300]
    near = [np.nextafter(e, to) for e in edges for to in (0.0, np.inf)]
    x = np.array([*edges, *near, *rng.uniform(0, 3, 2000), *10.0 ** rng.uniform(-20, 12, 2000)])
    y, short = _log1p(np.append(x, np.nan))
    assert np.isnan(y[-1])
    assert np.isnan(short[-1])
    with mpmath.workprec(120):
        for each, got, rough in zip(x, y, short, strict=False):
            truth = mpmath.log1p(mpmath.mpf(float(each)))
            assert abs(mpmath.mpf(float(got)) - truth) <= float(np.spacing(float(truth))), each
            assert abs(mpmath.mpf(float(rough)) - truth) <= 2e-10 * truth + 5e-324, each


@numba.njit(error_model="numpy")
def _log1p(x: Any) -> Any:
    y, short = np.empty_like(x), np.empty_like(x)
    for k in range(x.size):
        y[k], short[k] = elementary.log1p(x[k]), elementary.log1p_short(x[k])
    return y, short


@pytest.mark.parametrize("columns", [2, 5])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_many_targets_are_bytes_and_nothing_shows_it(
    reduction: str, columns: int, rng: Rng, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 1000
    x = rng.normal(0, 3, (n, columns)).astype(np.float32)
    y = rng.integers(columns, size=n)
    y[::11] = -100
    expected, slope = fl.cross_entropy.value_and_grad(x, y, reduction=reduction)
    weights = {"weight": rng.random(columns), "sample_weight": rng.random(n)}
    weighted = fl.cross_entropy(x, y, **weights, reduction=reduction)
    monkeypatch.setattr(classes, "MANY", n)
    assert np.array_equal(classes.targets(y, columns, -100)[0], np.where(y < 0, -1, y))
    own = classes.targets(y, columns, -100)[0]
    assert own.dtype == np.int8
    assert not np.shares_memory(own, y)
    given = {
        "int64": y,
        "int16": y.astype(np.int16),
        "int32": y.astype(np.int32),
        "strided": np.repeat(y, 3)[::3],
        "backwards": np.ascontiguousarray(y[::-1])[::-1],
        "swapped": y.astype(">i4"),
        "read-only": np.frombuffer(y.tobytes(), np.int64),
    }
    for name, each in given.items():
        value, grad = fl.cross_entropy.value_and_grad(x, each, reduction=reduction)
        assert np.array_equal(value, expected), name
        assert np.array_equal(grad, slope), name
    all_counted = np.maximum(y, 0)
    whole = fl.cross_entropy.value_and_grad(x, all_counted, reduction=reduction)
    for kind in (np.int8, np.uint8, np.uint16, np.uint32, np.uint64, np.intc):
        given_so = fl.cross_entropy.value_and_grad(x, all_counted.astype(kind), reduction=reduction)
        assert all(map(np.array_equal, given_so, whole)), kind
    assert np.array_equal(fl.cross_entropy(x, y, **weights, reduction=reduction), weighted)
    apart = np.zeros((n, 8), np.float32)[:, :columns]
    assert np.array_equal(fl.cross_entropy.grad(x, y, reduction=reduction, out=apart), slope)
    memory = np.empty(max(2, columns) * n, np.float32)
    under = memory[: 2 * n].view(np.int64)  # the gradient will be written over them
    under[...] = y
    assert np.array_equal(
        fl.cross_entropy.grad(x, under, reduction=reduction, out=memory.reshape(n, columns)), slope
    )
    folded = fl.cross_entropy.grad(x.reshape(10, 100, columns), y.reshape(10, 100), reduction=reduction)
    assert np.array_equal(folded.reshape(n, columns), slope)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_many_targets_are_checked_and_may_be_ignored(rng: Rng, kind: type) -> None:
    n = classes.MANY + 70
    x, y = rng.normal(0, 3, (n, 3)), rng.integers(3, size=n).astype(kind)
    out = np.full((n, 3), 7.0)
    for wrong in (3, -1, 2**30, -(2**31)) if kind is np.int32 else (3, -1, 2**40, 256, -(2**63)):
        y[n - 5] = wrong
        with pytest.raises(IndexError, match=rf"targets\[{n - 5}\] is {wrong}, out of range for 3 classes"):
            fl.cross_entropy.grad(x, y, out=out)
        assert (out == 7).all()
        assert not fl.cross_entropy.grad(x, y, ignore_index=wrong)[n - 5].any()
    y[n - 5] = 1
    some, slope = fl.cross_entropy.value_and_grad(x, y, reduction="none", ignore_index=1)
    assert not some[y == 1].any()
    assert not slope[y == 1].any()
    assert some[y != 1].all()
    assert fl.cross_entropy(x, y, ignore_index=1) == np.float64(
        fl.cross_entropy(x[y != 1], y[y != 1], reduction="sum") / np.count_nonzero(y != 1)
    )


def test_two_classes(dtype: type, rng: Rng) -> None:
    """The softplus of one difference, however far apart and however the rows lie."""
    limits = np.finfo(dtype)
    big = float(limits.max) / (1 if dtype is np.float32 else 4)
    values = np.array([0, -0.0, 1, -3, 90, -800, big, -big, big / 4, -np.inf, np.inf, np.nan], dtype)
    x = np.stack(np.meshgrid(values, values), axis=-1).reshape(-1, 2)
    y = rng.integers(2, size=len(x))
    y[::13] = -100
    with np.errstate(all="ignore"):
        for temperature in (1.0, 7.0, 0.01):
            options = {"reduction": "none", "temperature": temperature}
            wide_x = x.astype(np.longdouble)
            losses = reference.cross_entropy(wide_x, y, **options)
            slopes = reference.cross_entropy_grad(wide_x, y, **options)
            got, grad = fl.cross_entropy.value_and_grad(x, y, **options)
            rates = fl.cross_entropy.temperature_grad(x, y, **options)[1]
            expected = reference.cross_entropy_temperature_grad(wide_x, y, **options)
            for ours, truth in ((got, losses), (grad, slopes), (rates, expected)):
                # an ulp of d is in the exponent
                np.testing.assert_allclose(
                    ours, truth.astype(dtype), rtol=200 * limits.eps, atol=100 * float(limits.tiny)
                )
            assert np.allclose(got, losses.astype(dtype), 4 * limits.eps, limits.eps, equal_nan=True)
    for temperature in (1e-308, 5.6e-309):  # 2/T is no finite number
        loss, grad = fl.cross_entropy.value_and_grad([[1e-308, 0.0]], [1], temperature=temperature)
        assert loss == pytest.approx(np.log1p(np.exp(1e-308 / temperature)), rel=1e-14)
        assert grad[0, 0] == -grad[0, 1] > 0
    many, targets = rng.normal(0, 3, (5, 9, 2)).astype(dtype), rng.integers(2, size=(5, 4))
    for few in (many[:, :4], many[:, 1:8:2]):  # runs of four rows
        assert np.array_equal(fl.cross_entropy.grad(few, targets), fl.cross_entropy.grad(few.copy(), targets))


@pytest.mark.parametrize("columns", [2, 10, 128, 1500])
def test_nan_beside_infinity(columns: int, dtype: type, rng: Rng) -> None:
    """Rows side by side, and short ones: in each of them NaN is what counts, before or after an infinity."""
    lies_beside = rng.standard_normal((columns, 70)).astype(dtype)
    lies_beside[0, ::3], lies_beside[-1, ::3] = np.inf, np.nan
    lies_beside[0, 1::3], lies_beside[-1, 1::3] = np.nan, np.inf
    targets = np.zeros(70, np.int64)
    for x, axis in ((lies_beside, 0), (np.ascontiguousarray(lies_beside.T), 1)):
        odd = np.isnan(x).any(axis=axis)
        assert 0 < odd.sum() < len(odd)
        for results in (
            fl.logsumexp(x, axis=axis), fl.cross_entropy(x, targets, axis=axis, reduction="none"),
            fl.softmax(x, axis=axis).sum(axis=axis), fl.log_softmax(x, axis=axis).sum(axis=axis),
        ):  # fmt: skip
            assert np.array_equal(np.isnan(results), odd)
