"""Every backend against the reference: mixed steps of all policies, shapes and numbers."""

import logging
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core import native
from llmctl.core.errors import NotFoundError, UsageError
from llmctl.engine.attention import cpu, cuda, dense
from llmctl.engine.attention.cuda import KernelRow, Paged, PagedBackend
from llmctl.engine.attention.interface import Backend, Scoring, choose
from llmctl.engine.attention.reference import ReferenceBackend
from llmctl.engine.execution.step import Span
from tests.engine.attention.made import Case, Policy, Sizes, case_of

CPU = torch.device("cpu")


def by_tables(paged: Paged) -> torch.Tensor:
    """What a kernel with block tables does, on any device and in any numbers."""
    sequences, out = paged.sequences, torch.empty_like(paged.q)
    rows = sequences.rows.tolist()
    for number, length in enumerate(sequences.lengths.tolist()):
        keys, values = (
            each[sequences.tables[number].long()].flatten(0, 1)[:length].transpose(0, 1)
            for each in (paged.keys, paged.values)
        )
        some = slice(rows[number], rows[number + 1])
        tile = dense.Tile(
            first=0,
            last=some.stop - some.start,
            low=0,
            high=length,
            shift=length - (some.stop - some.start),
            window=paged.window,
        )
        mask = dense.DenseBackend()._mask(tile, paged.q.float())
        q = paged.q[some].transpose(0, 1).view(len(keys), -1, some.stop - some.start, keys.shape[-1])
        # What is masked may be no number: blocks that were freed.
        keys, values = keys.nan_to_num(), values.nan_to_num()
        attended = dense._written_out(q.float(), keys.float(), values.float(), mask, paged.scoring)
        out[some] = attended.flatten(0, 1).transpose(0, 1).to(out.dtype)
    return out


def compiled() -> Backend:
    functions = cpu.compiled()
    if functions is None:
        pytest.skip("there is no C compiler")
    return cpu.CpuBackend(functions)


BACKENDS = {
    "compiled": compiled,
    "torch": dense.DenseBackend,
    "paged": lambda: PagedBackend("by tables", KernelRow(attend=by_tables, module="torch", has_softcap=True)),
}


def assert_near(case: Case, backend: Backend, scoring: Scoring, *, has_new: bool = True) -> None:
    """`backend` says what the reference says in float64, up to the rounding of its numbers."""
    got = case.attend(backend, scoring, has_new=has_new)
    exact = replace(
        case,
        q=case.q.double(),
        layer=replace(case.layer, keys=case.layer.keys.double(), values=case.layer.values.double()),
    )
    expected = exact.attend(ReferenceBackend(), scoring, has_new=has_new)
    assert got.dtype == case.q.dtype
    assert got.is_contiguous()
    # Weights sum up to 1, values are up to 4 or so: an error of the last place of these.
    allowed = {torch.float32: 4e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[got.dtype]
    torch.testing.assert_close(got.double(), expected, rtol=allowed, atol=2 * allowed)


spans = st.lists(
    st.tuples(st.one_of(st.just(0), st.integers(0, 120)), st.one_of(st.just(1), st.integers(1, 40))),
    min_size=1,
    max_size=5,
)
policies = st.one_of(
    st.just(Policy()),
    st.builds(Policy, window=st.integers(1, 90)),
    st.builds(Policy, chunk=st.integers(1, 90)),
)
sizes = st.builds(
    lambda num_kv_heads, rep, key_size, value_size: Sizes(
        num_heads=num_kv_heads * rep,
        num_kv_heads=num_kv_heads,
        key_size=key_size,
        value_size=value_size or key_size,
    ),
    st.integers(1, 3),
    st.sampled_from([1, 2, 3, 4, 5, 7, 17]),
    st.sampled_from([4, 8, 20, 32, 64, 80, 96, 128, 192, 256]),
    st.sampled_from([None, None, None, 12, 64, 128]),
)
extras = st.tuples(st.sampled_from([None, None, 3.0, 50.0]), st.booleans())


@pytest.mark.parametrize("name", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(
    spans=spans,
    policy=policies,
    sizes=sizes,
    extras=extras,
    block_size=st.sampled_from([1, 2, 8, 16, 32, 64]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 99),
)
def test_any_step_is_as_the_reference_has_it(
    name: str,
    spans: list[tuple[int, int]],
    policy: Policy,
    sizes: Sizes,
    extras: tuple[float | None, bool],
    block_size: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    case = case_of(spans, policy, sizes=sizes, block_size=block_size, dtype=dtype, seed=seed)
    softcap, has_sinks = extras
    sinks = torch.randn(sizes.num_heads) if has_sinks else None
    assert_near(case, BACKENDS[name](), Scoring(sizes.key_size**-0.5, softcap, sinks))


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("policy", [Policy(), Policy(window=700), Policy(chunk=900), Policy(window=4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_contexts_of_many_tiles_and_parts_are_exact(name: str, policy: Policy, dtype: torch.dtype) -> None:
    case = case_of([(1700, 1), (5, 1), (1023, 300), (511, 1), (512, 1), (0, 500)], policy, dtype=dtype)
    assert_near(case, BACKENDS[name](), Scoring(0.2))


@pytest.mark.parametrize("policy", [Policy(), Policy(window=9), Policy(chunk=14)])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_tiles_of_every_size_are_exact(
    policy: Policy, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "_WINDOW_ROWS", 3)
    case = case_of([(0, 30), (17, 25), (40, 1)], policy)
    for num_elements in (1, 70, 400, 2000):
        monkeypatch.setattr(dense, "_MASK_ELEMENTS", num_elements)
        monkeypatch.setattr(dense, "_SCORE_ELEMENTS", num_elements)
        monkeypatch.setattr(dense, "_KEPT_MASK_ELEMENTS", 500)
        assert_near(case, dense.DenseBackend(), Scoring(0.3, softcap))


def test_masks_that_are_kept_are_bounded_and_of_the_right_numbers() -> None:
    backend = dense.DenseBackend()
    for start in range(5, 400, 7):
        for dtype in (torch.float32, torch.bfloat16):
            assert_near(case_of([(start, 30)], dtype=dtype), backend, Scoring(0.2))
    assert sum(mask.numel() for mask in backend._masks.values()) <= dense._KEPT_MASK_ELEMENTS


@pytest.mark.parametrize("name", BACKENDS)
def test_layers_that_share_keys_write_none(name: str) -> None:
    case = case_of([(30, 1), (0, 12), (9, 8)])
    assert_near(case, BACKENDS[name](), Scoring(0.3), has_new=False)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_new_tokens_are_stored_and_nothing_else_changes(name: str, dtype: torch.dtype) -> None:
    case = case_of([(30, 1), (0, 12), (9, 8)], Policy(window=16), dtype=dtype)
    got, expected = case.stored(BACKENDS[name]()), case.stored(ReferenceBackend())
    for mine, theirs in ((got.keys, expected.keys), (got.values, expected.values)):
        assert torch.equal(mine.view(torch.uint8), theirs.view(torch.uint8))


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inputs_may_lie_in_memory_in_any_order(name: str, dtype: torch.dtype) -> None:
    case = case_of([(30, 1), (2, 6)], dtype=dtype)

    def scattered(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.repeat_interleave(3, -1)[..., ::3]

    moved = replace(case, q=scattered(case.q), k=scattered(case.k), v=case.v.contiguous())
    assert moved.k.stride(2) == 3
    assert_near(moved, BACKENDS[name](), Scoring(0.3))


@pytest.mark.parametrize("name", ["compiled", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_company_changes_no_bit(name: str, dtype: torch.dtype) -> None:
    backend = BACKENDS[name]()
    alone = case_of([(1200, 1)], dtype=dtype)
    case = case_of([(1200, 1), (40, 1), (3, 20), (900, 1)], dtype=dtype)
    # The first sequence has the same numbers in other blocks.
    block_size = case.step.block_size
    for position in range(1200):
        source, target = (
            int(each.step.groups[0].tables[0, position // block_size]) for each in (alone, case)
        )
        offset = position % block_size
        case.layer.keys[target, :, offset] = alone.layer.keys[source, :, offset]
        case.layer.values[target, :, offset] = alone.layer.values[source, :, offset]
    for mine, theirs in ((case.q, alone.q), (case.k, alone.k), (case.v, alone.v)):
        mine[:, 0] = theirs[:, 0]
    got, expected = case.attend(backend, Scoring(0.2)), alone.attend(backend, Scoring(0.2))
    assert torch.equal(got[0], expected[0])


@pytest.mark.parametrize("policy", [Policy(), Policy(window=70), Policy(chunk=100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neither_company_nor_cuts_of_a_prompt_change_a_bit(policy: Policy, dtype: torch.dtype) -> None:
    whole = case_of([(7, 300), (0, 130)], policy, sizes=Sizes(num_heads=10), dtype=dtype)
    expected = whole.attend(compiled(), Scoring(0.2))
    layer, row = whole.stored(compiled()), 0
    for count in (1, 2, 61, 64, 100, 72):
        some = slice(row, row + count)
        spans = [Span(row=0, count=count, start=7 + row)]
        step = replace(
            whole.step,
            ids=whole.step.ids[:, some],
            spans=spans,
            meta=torch.tensor([(0, count, 7 + row)]),
            groups=[
                replace(each, tables=each.tables[:1], slots=each.slots[some]) for each in whole.step.groups
            ],
        )
        got = compiled().attend(whole.q[:, some], None, None, layer, step, Scoring(0.2))
        # A single token is computed by other code.
        assert count == 1 or torch.equal(got, expected[some])
        row += count


@pytest.mark.parametrize("name", ["haswell", "skylake-avx512"])
def test_code_for_older_cpus_is_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = tuple(f"-march={name}" if flag == "-march=native" else flag for flag in native._FLAGS)
    needed = {"haswell": "avx2", "skylake-avx512": "avx512dq"}[name]
    if needed not in native._cpu().split() or native.compiler() is None:
        pytest.skip("there is no C compiler, or this is such a CPU")
    monkeypatch.setattr(native, "_FLAGS", flags)
    monkeypatch.setattr(native, "library", native.library.__wrapped__)
    functions = cpu.compiled.__wrapped__()
    assert functions is not None
    backend = cpu.CpuBackend(functions)
    for dtype in (torch.float32, torch.bfloat16):
        for policy in (Policy(), Policy(window=50), Policy(chunk=70)):
            case = case_of([(33, 100), (0, 7), (90, 1)], policy, sizes=Sizes(value_size=20), dtype=dtype)
            assert_near(case, backend, Scoring(0.2, 30.0, torch.randn(4)))


def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    case, results = case_of([(2000, 1), (30, 1), (0, 9), (400, 300)], dtype=torch.bfloat16), []
    for count in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        results.append(case.attend(compiled(), Scoring(0.2)))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("scale", [0.0, 30.0, 1e4])
def test_scores_of_any_size_do_not_overflow(name: str, scale: float) -> None:
    case = case_of([(700, 1), (0, 90)])
    scoring = Scoring(scale, sinks=torch.tensor([-1e4, 0.0, 50.0, 2e5]))
    got, expected = case.attend(BACKENDS[name](), scoring), case.attend(ReferenceBackend(), scoring)
    # Differences of the last place of a score are multiplied by its size.
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 + scale * 1e-5)


@pytest.mark.parametrize("softcap", [0.01, 1.0, 50.0])
def test_a_softcap_is_exact_near_nought_and_far_from_it(softcap: float) -> None:
    for scale in (1e-4, 0.1, 10.0):
        assert_near(case_of([(300, 1), (100, 20)]), compiled(), Scoring(scale, softcap))


@pytest.mark.parametrize("name", ["compiled", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 8])
def test_what_is_no_number_stays_with_its_sequence(name: str, dtype: torch.dtype, count: int) -> None:
    case = case_of([(30, count), (30, count)], dtype=dtype)
    case.k[:, 0] = torch.nan
    got = case.attend(BACKENDS[name](), Scoring(0.3))
    assert got[:count].isnan().all()
    assert got[count:].isfinite().all()


def test_the_cpu_takes_its_c_code_where_there_is_a_compiler(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llmctl")
    if native.compiler() is not None:
        assert isinstance(choose(CPU, torch.bfloat16), cpu.CpuBackend)
        assert "attention: CPU" in caplog.text
    assert isinstance(choose(CPU, torch.float16), dense.DenseBackend)
    monkeypatch.setattr(cpu, "compiled", lambda: None)
    assert isinstance(choose(CPU, torch.bfloat16), dense.DenseBackend)
    assert "attention: torch" in caplog.text


def test_keys_are_not_kept_as_whole_numbers() -> None:
    with pytest.raises(UsageError, match="as int8"):
        choose(CPU, torch.int8)


@pytest.mark.parametrize("device", ["cuda", "mps", "xpu"])
def test_other_devices_take_sdpa_unless_told_otherwise(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(choose(torch.device(device), torch.bfloat16), dense.DenseBackend)
    monkeypatch.setenv(cuda.VARIABLE, "torch-varlen")
    is_paged = isinstance(choose(torch.device(device), torch.bfloat16), PagedBackend)
    assert is_paged == (device == "cuda")


def test_a_kernel_that_is_none_or_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cuda.VARIABLE, "fast")
    with pytest.raises(UsageError, match="one of sdpa, torch-varlen, flash-attn, not 'fast'"):
        choose(torch.device("cuda"), torch.bfloat16)
    monkeypatch.setitem(cuda.KERNELS, "flash-attn", replace(cuda.KERNELS["flash-attn"], module="no.such"))
    monkeypatch.setenv(cuda.VARIABLE, "flash-attn")
    with pytest.raises(NotFoundError, match=r"needs no\.such"):
        choose(torch.device("cuda"), torch.bfloat16)
