"""Shows what `llmctl bench serve` measured: a table, two servers side by side, or one JSON object."""

from typing import TYPE_CHECKING, Any

from llmctl import __version__
from llmctl.cli.console import Console

if TYPE_CHECKING:
    from llmctl.bench.percentiles import Figures
    from llmctl.bench.serving import Load, Measured
    from llmctl.cli.bench_serve import Flags

_NAMES = {
    "ttft": "first token ms",
    "itl": "inter-token ms",
    "tpot": "per token ms",
    "e2el": "end-to-end ms",
}
_STATS = {"mean": "mean", "median": "p50", "p90": "p90", "p99": "p99"}
_RATES = {"output_throughput": "output tokens/s", "request_throughput": "requests/s"}
_COMPARED = ("median", "p99")
_DIGITS = 3


def tell(console: Console, flags: "Flags", measured: "list[Measured]", *, is_json: bool) -> None:
    """One server, or two and how many times as good the first is as the second."""
    for each in measured:
        where = f"{each.server.base_url}: " if len(measured) > 1 else ""
        for remark in each.remarks:
            console.note(f"{where}{remark}")
    if is_json:
        console.json(_as_json(flags, measured))
        return
    console.line(_described(flags))
    for each in measured:
        _tell_counts(console, each)
    console.line()
    if len(measured) == 1:
        _tell_one(console, measured[0].figures)
    else:
        _tell_two(console, measured[0], measured[1])


def ratios(ours: "Figures", theirs: "Figures") -> dict[str, float | None]:
    """How many times as good ours are: rates that are higher, times that are shorter; by vLLM's names."""
    own, other = ours.as_dict(), theirs.as_dict()
    found = {name: _ratio(own[name], other[name]) for name in _RATES}
    for name in _NAMES:
        for what in _STATS:
            key = f"{what}_{name}_ms"
            found[key] = _ratio(other[key], own[key])
    return found


def _ratio(better: float | None, worse: float | None) -> float | None:
    return round(better / worse, _DIGITS) if better and worse else None


def _as_json(flags: "Flags", measured: "list[Measured]") -> dict[str, Any]:
    first, *others = (_side(flags.load, each) for each in measured)
    lengths = None if flags.mix is None else {"input_len": flags.mix[0]}
    found = {**first, **(lengths or {}), "output_len": flags.load.num_output, "llmctl": __version__}
    if others:
        found |= {"against": others[0], "ratios": ratios(measured[0].figures, measured[1].figures)}
    return found


def _side(load: "Load", each: "Measured") -> dict[str, Any]:
    return {
        "url": each.server.base_url,
        "model_id": each.model,
        "endpoint": each.way.form.endpoint,
        "prompt_ids": each.way.form.has_ids,
        "ignore_eos": each.way.ignores_eos,
        "num_prompts": load.num_requests,
        "max_concurrency": load.num_clients,
        "request_rate": load.rate,
        "interrupted": not each.is_whole,
        "unfinished": each.num_unfinished,
        **each.figures.as_dict(),
        "remarks": list(each.remarks),
    }


def _described(flags: "Flags") -> str:
    load = flags.load
    lengths = (
        f"prompts of a file, answers of {load.num_output} tokens"
        if flags.mix is None
        else f"{flags.mix[0]}:{flags.mix[1]} tokens"
    )
    if load.rate is not None:
        return f"{load.num_requests} requests, {load.rate:g} a second; {lengths}"
    clients = "1 client that comes" if load.num_clients == 1 else f"{load.num_clients} clients that come"
    return f"{load.num_requests} requests, {clients} back; {lengths}"


def _tell_counts(console: Console, each: "Measured") -> None:
    found = each.figures
    counts = [f"{found.completed} answered in {found.duration:.1f} s"]
    if found.failed:
        counts.append(f"{found.failed} failed")
    if not each.is_whole:
        counts.append(f"{each.num_unfinished} not finished")
    if found.completed:
        prompt, output = (
            total / found.completed for total in (found.total_input_tokens, found.total_output_tokens)
        )
        counts.append(f"on average {prompt:.4g}:{output:.4g} tokens" if prompt else f"{output:.4g} tokens")
    begin = "" if each.is_whole else "interrupted: "
    console.line(f"{each.server.base_url}, {each.model}")
    console.line(f"  {begin}{', '.join(counts)}")
    for failure in found.failures:
        example = f" ({failure.example})" if failure.example else ""
        console.line(f"  {failure.count} x {failure.kind}{example}")


def _tell_one(console: Console, found: "Figures") -> None:
    for name, label in _RATES.items():
        console.line(f"{label}: {getattr(found, name):.2f}")
    console.line()
    rows = [
        [_NAMES[name], *(_ms(None if spread is None else getattr(spread, what)) for what in _STATS)]
        for name, spread in ((name, found.spreads[name]) for name in _NAMES)
    ]
    console.table(["", *_STATS.values()], rows)


def _tell_two(console: Console, ours: "Measured", theirs: "Measured") -> None:
    own, other, times = ours.figures.as_dict(), theirs.figures.as_dict(), ratios(ours.figures, theirs.figures)
    labels = dict(_RATES)
    for what in _COMPARED:
        labels |= {f"{what}_{name}_ms": f"{_NAMES[name]} {_STATS[what]}" for name in _NAMES}
    rows = [
        [label, _ms(own[key]), _ms(other[key]), "" if times[key] is None else f"{times[key]:.2f}"]
        for key, label in labels.items()
    ]
    console.table(["", "first", "second", "times"], rows)
    console.note("times: how many times as good the first server is as the second")


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
