"""float16 and bfloat16: the conversions, and every operation on arrays of them.

The rule is short: a result is what the same operation makes of the same numbers in float32, rounded once
where it has the shape of the input. The float32 kernels are held to the reference elsewhere, the halves
are here too.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numba
import numpy as np
import pytest
from cases import CASES, DIVERGENCES, ELEMENTS, MARGINS, filled, layouts
from closeness import assert_close
from fault import run

import fastloss as fl
from fastloss._engine import blocks, cache, half, vector

Array = np.ndarray
HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
EVERY = np.arange(1 << 16, dtype=np.uint16)


@pytest.fixture(params=HALVES)
def kind(request: pytest.FixtureRequest) -> np.dtype[Any]:
    return HALVES[request.param]


# ---- conversions ----------------------------------------------------------------------------
WIDEN = {
    "float16": (half.float_of_float16, half.widen_float16, "float16"),
    "float16 by bits": (half.float_of_float16_by_bits, half.widen_float16_by_bits, "float16"),
    "bfloat16": (half.float_of_bfloat16, half.widen_bfloat16, "bfloat16"),
}
NARROW = {
    "float16": (half.float16_of_float, half.narrow_float16, "float16"),
    "float16 by bits": (half.float16_of_float_by_bits, half.narrow_float16_by_bits, "float16"),
    "bfloat16": (half.bfloat16_of_float, half.narrow_bfloat16, "bfloat16"),
}


def one_by_one(convert: Any) -> Any:
    @numba.njit
    def loop(x: Array, to: Array) -> None:
        for k in range(x.size):
            to[k] = convert(x[k])

    return loop


def by_vectors(convert: Any) -> Any:
    @numba.njit
    def loop(x: Array, to: Array) -> None:
        vector.wide()
        for j in range(0, x.size, vector.LANES):
            convert(vector.part(x, j), vector.part(to, j))

    return loop


def loops(single: Any, vectors: Any) -> tuple[Any, Any]:
    return one_by_one(single), by_vectors(vectors)


@pytest.mark.parametrize("name", WIDEN)
def test_every_half_is_widened_as_numpy_does(name: str) -> None:
    single, vectors, kind = WIDEN[name]
    h = EVERY.view(HALVES[kind])
    with np.errstate(invalid="ignore"):
        wanted = h.astype(np.float32)
    for loop in loops(single, vectors):
        for compute in (np.float32, np.float64):
            got = np.empty(h.size, compute)
            loop(EVERY.view(np.int16), got)
            assert np.array_equal(got, wanted, equal_nan=True)
            assert np.array_equal(np.signbit(got), np.signbit(wanted))
            assert np.isnan(got).any()


def near_midpoints(kind: np.dtype[Any]) -> Array:
    """Every number of a half type, the midpoints between neighbours, and the float32 on both sides."""
    h = EVERY.view(kind).astype(np.float64)
    ordered = np.unique(h[np.isfinite(h)])
    ends = ordered[-1] + (ordered[-1] - ordered[-2]) * np.array([0.5, 1.0])  # where infinity begins
    points = np.concatenate([ordered, (ordered[1:] + ordered[:-1]) / 2, ends, -ends]).astype(np.float32)
    around = [points, np.nextafter(points, np.float32(np.inf)), np.nextafter(points, -np.float32(np.inf))]
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, 1e-38], np.float32)
    signalling = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0x7FA00000], np.uint32).view(np.float32)
    x = np.concatenate([*around, special, signalling])
    return np.concatenate([x, np.zeros(-x.size % vector.LANES, np.float32)])


@pytest.mark.parametrize("name", NARROW)
def test_float32_is_rounded_to_nearest_even(name: str) -> None:
    single, vectors, kind = NARROW[name]
    with np.errstate(all="ignore"):
        x = near_midpoints(HALVES[kind])
        wanted = x.astype(HALVES[kind])
    number = ~np.isnan(x)
    assert (~number).sum() == 5
    for loop in loops(single, vectors):
        bits = np.empty(x.size, np.int16)
        loop(x, bits)
        assert np.array_equal(bits[number], wanted.view(np.int16)[number])
        nan = bits[~number].view(HALVES[kind])
        assert np.isnan(nan).all()
        assert (nan.view(np.uint16) & {"float16": 0x200, "bfloat16": 0x40}[kind]).all(), "quiet"


@pytest.mark.parametrize("n", [half.FEW - 1, half.FEW, half.FEW + 1, 31, 33])
def test_fewer_than_a_vector_of_halves(n: int, kind: np.dtype[Any], rng: np.random.Generator) -> None:
    """Read and written where they lie, and nothing beside them."""
    x, out = rng.normal(0, 4, (3, 40)).astype(kind), np.full((3, 40), 7, kind)
    fl.softmax(x[:, 3 : n + 3], out=out[:, 5 : n + 5])
    assert np.array_equal(out[:, 5 : n + 5], fl.softmax(x[:, 3 : n + 3].astype(np.float32)).astype(kind))
    assert (out[:, :5] == 7).all()
    assert (out[:, n + 5 :] == 7).all()


def test_float64_results_are_narrowed_too(kind: np.dtype[Any]) -> None:
    x = np.linspace(-70_000, 70_000, 32 * 50)
    bits = np.empty(x.size, np.int16)
    by_vectors(getattr(half, f"narrow_{kind.name}"))(x, bits)
    with np.errstate(over="ignore"):
        assert np.array_equal(bits, x.astype(np.float32).astype(kind).view(np.int16))


def test_what_a_target_promises() -> None:
    assert half.has_f16c("+64bit,+avx,+avx2,+f16c,-sse4a")
    assert not half.has_f16c("")
    assert not half.has_f16c("+avx,+avx2,-f16c")
    assert not half.has_f16c("-avx,-avx2,+f16c"), "F16C works on registers of AVX"


@pytest.mark.parametrize("settings", [{"NUMBA_CPU_NAME": "generic"}, {"NUMBA_ENABLE_AVX": "0"}], ids=str)
def test_no_instruction_that_the_target_lacks(settings: dict[str, str]) -> None:
    """Nor the library's function that LLVM would call instead, which is not there."""
    said = run(
        """
import numpy as np, test_half
bits, numbers = np.zeros(64, np.int16), np.zeros(64, np.float32)
for table, arrays in ((test_half.WIDEN, (bits, numbers)), (test_half.NARROW, (numbers, bits))):
    for loop in test_half.loops(*table["float16"][:2]):
        loop(*arrays)
        for code in loop.inspect_asm().values():
            assert "vcvtph2ps" not in code and "vcvtps2ph" not in code
            assert "extendhfsf2" not in code and "truncsfhf2" not in code
for name in test_half.WIDEN:
    test_half.test_every_half_is_widened_as_numpy_does(name)
for name in test_half.NARROW:
    test_half.test_float32_is_rounded_to_nearest_even(name)
print("right")
""",
        **settings,
    )
    assert said == "right"


# ---- operations -----------------------------------------------------------------------------
def cast(values: Any, dtype: Any) -> Any:
    """Arguments with their real numbers in another type."""
    if isinstance(values, dict):
        return {k: cast((v,), dtype)[0] for k, v in values.items()}
    return tuple(
        v.astype(dtype) if isinstance(v, Array) and v.dtype.kind in "fV" else v for v in values
    )


def sampled(
    name: str, shape: tuple[int, ...], options: dict[str, Any], kind: Any, rng: np.random.Generator
) -> tuple[Any, Any]:
    case = CASES[name]
    chosen = filled(options, rng, shape, np.float32)
    return cast(case.sample(rng, shape, np.float32, chosen), kind), cast(chosen, kind)


def expected(name: str, args: Any, options: Any, kind: Any) -> Array:
    """By way of float32."""
    case = CASES[name]
    if name.endswith("from_output"):
        op, _, method = name.partition(".")
        y = getattr(fl, op)(args[0], **options).astype(np.float32)
        wide = getattr(getattr(fl, op), method)(y, args[1].astype(np.float32), **options)
    else:
        wide = case.call(*cast(args, np.float32), **cast(options, np.float32))
    return rounded(wide, kind) if case.rowwise else np.asarray(wide)


def rounded(wide: Any, kind: Any) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(wide).astype(kind)


@pytest.mark.parametrize("name", CASES)
def test_is_the_float32_result_rounded_once(
    name: str, kind: np.dtype[Any], rng: np.random.Generator
) -> None:
    case = CASES[name]
    for shape in ((5, 7), (2, 3, 40), (2, 1500)):
        for options in (case.options[0], case.options[-1], case.options[len(case.options) // 2]):
            args, chosen = sampled(name, shape, options, kind, rng)
            ours = np.asarray(case.call(*args, **chosen))
            assert ours.dtype == (kind if case.rowwise else np.float32)
            assert np.array_equal(ours, expected(name, args, chosen, kind)), (shape, options)


@pytest.mark.parametrize("name", [n for n in CASES if not n.endswith("from_output")])
def test_agrees_with_reference(name: str, kind: np.dtype[Any], rng: np.random.Generator) -> None:
    case = CASES[name]
    for shape in ((4, 5), (3, 33)):
        for options in case.options[:1] + case.options[-2:]:
            args, chosen = sampled(name, shape, options, kind, rng)
            ours = case.call(*args, **chosen)
            truth = case.truth(*cast(args, np.float64), **cast(chosen, np.float64))
            textbook = case.naive(*cast(args, np.float32), **cast(chosen, np.float32))
            axis = options.get("axis", -1) if case.rowwise else None
            assert_close(ours, truth, textbook, axis, f"{name}{options}{shape}")


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_jacobian(op: str, kind: np.dtype[Any], rng: np.random.Generator) -> None:
    x = rng.normal(0, 3, (2, 3, 4)).astype(kind)
    for axis in (0, -1):
        ours = getattr(fl, op).jacobian(x, axis, temperature=1.7)
        assert ours.dtype == kind
        wide = getattr(fl, op).jacobian(x.astype(np.float32), axis, temperature=1.7)
        assert np.array_equal(ours, rounded(wide, kind))


@pytest.mark.parametrize("name", CASES)
def test_every_layout_gives_the_same_bits(
    name: str, kind: np.dtype[Any], rng: np.random.Generator
) -> None:
    case = CASES[name]
    args, options = sampled(name, (6, 70), case.options[-1], kind, rng)
    plain = np.asarray(case.call(*args, **options))
    for at, arg in enumerate(args):
        for layout, same in layouts(arg).items() if arg.ndim == 2 else ():
            got = np.asarray(case.call(*args[:at], same, *args[at + 1 :], **options))
            assert np.array_equal(got, plain), (at, layout)
            assert got.dtype == plain.dtype
            assert got.dtype.isnative


@pytest.mark.parametrize("name", [n for n in CASES if CASES[n].rowwise and not n.endswith("hess")])
def test_out_of_every_layout_and_in_place(
    name: str, kind: np.dtype[Any], rng: np.random.Generator
) -> None:
    case = CASES[name]
    args, options = sampled(name, (6, 70), case.options[-1], kind, rng)
    plain = case.call(*args, **options)
    for layout, out in layouts(np.full((6, 70), 7, kind)).items():
        if out.flags.writeable:
            assert case.call(*args, **options, out=out) is out
            assert np.array_equal(out, plain), layout
    for at, arg in enumerate(args):
        for layout, same in layouts(arg).items() if arg.shape == plain.shape else ():
            if same.flags.writeable:
                moved = (*args[:at], same, *args[at + 1 :])
                assert case.call(*moved, **options, out=same) is same
                assert np.array_equal(same, plain), (at, layout)


def test_both_derivatives_one_in_place(kind: np.dtype[Any], rng: np.random.Generator) -> None:
    x, y = rng.normal(0, 3, (5, 70)).astype(kind), np.arange(5)
    plain = fl.cross_entropy.value_grad_hess(x, y)
    for at in (0, 1):
        same, other = x.copy(), np.empty_like(x)
        ours = fl.cross_entropy.value_grad_hess(x, y, out=(same, other) if at == 0 else (other, same))
        assert all(map(np.array_equal, ours, plain))
    wide = fl.cross_entropy.value_grad_hess(x.astype(np.float32), y)
    assert plain[0] == wide[0]
    assert all(np.array_equal(a, rounded(b, kind)) for a, b in zip(plain[1:], wide[1:], strict=True))


@pytest.mark.parametrize("shift", [1, 69, 70, -1, -70])
def test_partial_overlap_is_as_if_copied(
    shift: int, kind: np.dtype[Any], rng: np.random.Generator
) -> None:
    memory = rng.normal(0, 3, 1000).astype(kind)
    x, out = memory[100:520].reshape(6, 70), memory[100 + shift : 520 + shift].reshape(6, 70)
    wanted = fl.softmax(x.copy())
    fl.softmax(x, out=out)
    assert np.array_equal(out, wanted)


LONG = ["softmax", "log_softmax.vjp", "logsumexp", "cross_entropy.grad", "softplus"]


@pytest.mark.parametrize("name", LONG)
def test_long_rows(name: str, kind: np.dtype[Any], rng: np.random.Generator) -> None:
    """Of several segments, and longer than what a worker keeps."""
    for shape in ((3, 70_001), (1, 1_100_000)):
        args, options = sampled(name, shape, {}, kind, rng)
        assert np.array_equal(CASES[name].call(*args, **options), expected(name, args, options, kind))


@pytest.mark.parametrize("offset", [0, 1, 2, 31, 32, 63])
def test_streamed_outputs(
    offset: int, kind: np.dtype[Any], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever on a cache line they begin, and nothing beside them is written."""
    monkeypatch.setattr(blocks, "STREAMED", 0)
    for columns in (1, 31, 33, 64, 1057, 2500):
        x = rng.normal(0, 3, (3, columns)).astype(kind)
        memory = np.full(64 + offset + x.size + 64, 7, kind)
        start = offset + -memory.ctypes.data % 64 // 2
        out = memory[start : start + x.size].reshape(x.shape)
        for call in (fl.softmax, fl.log_softmax, fl.sigmoid):
            assert np.array_equal(call(x, out=out), call(x)), (columns, call)
        assert (memory[:start] == 7).all()
        assert (memory[start + x.size :] == 7).all()


@pytest.mark.parametrize("temperature", [0.5, 1e-20, 1e20])
def test_temperatures_that_float64_computes(temperature: float, kind: np.dtype[Any]) -> None:
    x = np.array([[1, 2, -3], [0.5, 0.25, 0.125]]).astype(kind)
    wide = fl.softmax(x.astype(np.float32), temperature=temperature)
    assert np.array_equal(fl.softmax(x, temperature=temperature), wide.astype(kind))


def test_special_values(kind: np.dtype[Any]) -> None:
    inf, nan = np.inf, np.nan
    rows = [
        [-inf, 1, 2], [-inf, -inf, -inf], [nan, 1, -inf], [inf, 1, -inf], [6e4, -6e4, 0], [6e4, 6e4, -inf],
        [6e-8, -6e-8, 0],
    ]  # fmt: skip
    for columns in (3, 40, 1100):
        x = np.zeros((7, columns))
        x[:, -3:] = rows
        x = x.astype(kind)
        v = np.linspace(-1, 1, x.size).reshape(x.shape).astype(kind)
        y = np.arange(7) % columns
        for name in CASES:
            beside: tuple[Any, ...] = ()
            op = name.partition(".")[0]
            if op in DIVERGENCES:
                drawn = CASES[name].sample(np.random.default_rng(0), (2, 2), np.float32, {})
                beside = tuple(v if a.ndim == 2 else v[:, 0] for a in drawn[1:])
            elif op in ELEMENTS:
                beside = (v,)
            elif op in MARGINS:
                beside = (y,)
            elif op == "cosine_logits":
                w = np.linspace(-2, 2, columns * columns).reshape(columns, columns).astype(kind)
                beside = (w, v) if name.endswith("vjp") else (w,)
            elif "probabilities" in name:
                beside = (abs(v), v) if name.endswith("hvp") else (abs(v),)
            elif "entropy" in name or "nll" in name:
                beside = (y, v) if name.endswith("hvp") else (y,)
            elif "jvp" in name or "vjp" in name:
                beside = (v[:, 0] if name == "logsumexp.vjp" else v,)
            ours = np.asarray(CASES[name].call(x, *beside))
            wanted = expected(name, (x, *beside), {}, kind)
            assert np.array_equal(ours, wanted, equal_nan=True), (name, columns)


@pytest.mark.parametrize("columns", [32, 45, 1000, 2100])
def test_nan_beside_infinity(columns: int, kind: np.dtype[Any], rng: np.random.Generator) -> None:
    """Wherever in a row: in whole vectors, in what is left over, in another block. NaN is what counts."""
    places = [0, 17, columns // 2, columns - 1]
    wide = rng.standard_normal((2 * len(places), columns)).astype(np.float32)
    for i, at in enumerate(places):
        wide[i, at], wide[i, at - 1] = np.nan, np.inf
        wide[len(places) + i] = -np.inf
        wide[len(places) + i, at] = np.nan
    x = wide.astype(kind)
    targets = np.zeros(len(x), np.int64)
    assert np.isnan(fl.logsumexp(x)).all()
    assert np.isnan(fl.cross_entropy(x, targets, reduction="none")).all()
    for op in (fl.softmax, fl.log_softmax):
        assert np.isnan(op(x).astype(np.float32)).all()


def test_what_is_too_large_to_store_is_infinite() -> None:
    x = np.array([[0, 4]], np.float16)
    assert fl.log_softmax(x, temperature=1e-5).tolist() == [[-np.inf, 0]]
    assert fl.log_softmax(x, temperature=1e-4).tolist() == [[-40000, 0]]
    assert fl.softmax.jvp(x, x * 1e4, temperature=1e-3).tolist() == [[0, 0]]
    assert fl.softmax.jvp(x, x * 1e4, temperature=1).tolist() == [[-706.5, 706.5]]
    grad = fl.cross_entropy.grad(x, [0], temperature=1e-5, reduction="sum")
    assert grad.tolist() == [[-np.inf, np.inf]]
    assert fl.softplus(np.float16([65504, -65504])).tolist() == [65504, 0]
    small = fl.softmax(np.float16([[0, -17]]))  # a subnormal, 4.14e-8, to the nearest 2**-24
    assert small.tolist() == [[1, 2.0**-24]]


def test_companions_of_every_type(kind: np.dtype[Any], rng: np.random.Generator) -> None:
    """Tangents, cotangents and weights are computed with as they are, as far as float32 holds them."""
    x, y = rng.normal(size=(3, 40)).astype(kind), [0, 5, 39]
    wide = x.astype(np.float32)
    for other in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int8):
        t, w, s = (rng.uniform(1, 3, n).astype(other) for n in ((3, 40), 40, 3))
        got = fl.softmax.jvp(x, t)
        assert got.dtype == kind
        assert np.array_equal(got, rounded(fl.softmax.jvp(wide, t.astype(np.float32)), kind))
        got = fl.logsumexp.vjp(x, s)
        assert np.array_equal(got, rounded(fl.logsumexp.vjp(wide, s.astype(np.float32)), kind))
        for options in ({}, {"label_smoothing": 0.2}):
            weights = {"weight": w, "sample_weight": s, **options}
            loss, grad = fl.cross_entropy.value_and_grad(x, y, **weights)
            wanted = fl.cross_entropy.value_and_grad(wide, y, **weights)
            assert loss == wanted[0]
            assert type(loss) is np.float32
            assert np.array_equal(grad, rounded(wanted[1], kind))
        # and halves beside an array of another type
        double = x.astype(np.float64)
        assert np.array_equal(fl.softmax.jvp(double, x), fl.softmax.jvp(double, double))


def test_scalars_and_types_of_results(kind: np.dtype[Any]) -> None:
    x, y = np.ones((2, 3), kind), [0, 1]
    for value in (fl.logsumexp(x, axis=None), fl.cross_entropy(x, y), fl.nll_loss(x, y, reduction="sum")):
        assert type(value) is np.float32
    assert fl.cross_entropy(x, y, reduction="none").dtype == np.float32
    assert fl.logsumexp.jvp(x, x).dtype == np.float32
    assert type(fl.sigmoid(x[0, 0])) is kind.type
    assert type(fl.softmax(x[0, 0], axis=None)) is kind.type
    swapped = x.astype(kind.newbyteorder("S"))
    assert fl.softmax(swapped).dtype == kind
    assert fl.softmax(x, out=swapped) is swapped
    assert np.array_equal(swapped, fl.softmax(x))


def test_empty(kind: np.dtype[Any]) -> None:
    assert fl.softmax(np.empty((0, 5), kind)).dtype == kind
    assert fl.softmax(np.empty((5, 0), kind)).shape == (5, 0)
    assert fl.logsumexp(np.empty((2, 0), kind)).tolist() == [-np.inf, -np.inf]
    assert np.isnan(fl.cross_entropy(np.empty((0, 5), kind), np.empty(0, int)))


def test_reference_takes_them(kind: np.dtype[Any], rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4)).astype(kind)
    ours = fl.reference.softmax(x)
    assert ours.dtype == np.float64
    assert np.array_equal(ours, fl.reference.softmax(x.astype(np.float64)))


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_compiled_for_them(
    name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    args, options = sampled(name, (4, 40), CASES[name].options[0], np.float32, rng)
    CASES[name].call(*args, **options)
    before = cache.compilations
    asked: list[Any] = []
    monkeypatch.setattr(cache, "compile_for", lambda *a: asked.append(a))
    for kind in HALVES.values():
        CASES[name].call(*cast(args, kind), **cast(options, kind))
    assert (asked, cache.compilations) == ([], before)


def test_warmup_of_them_is_that_of_float32() -> None:
    fl.warmup("float32", "sigmoid")
    assert fl.warmup(["float16", ml_dtypes.bfloat16], "sigmoid") == 0
