"""A study's results as Markdown and LaTeX; made of results.json, computes nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pandallm.report.tables import escape_latex, escape_markdown
from pandallm.report.text import count, p_value
from pandallm.report.text import size as bytes_of

Json = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]


def value(number: float | None, kind: str) -> str:
    """A metric's value: accuracies in per cent, bits per byte with three places."""
    if number is None:
        return "–"
    return f"{100 * number:.1f}" if kind == "accuracy" else f"{number:.3f}"


def effect(number: float | None, kind: str) -> str:
    """A difference: points of accuracy, or per cent of bits per byte; with its sign."""
    if number is None:
        return "–"
    return f"{100 * number:+.1f}" if kind == "accuracy" else f"{100 * number:+.2f} %"


def size(number: float | None, kind: str) -> str:
    """A difference without its sign, with its unit's sign: `2.0` points, `1.00 %`."""
    return effect(number, kind).lstrip("+")


def interval(row: Json, kind: str, write: Callable[[float | None, str], str]) -> str:
    """`low to high`, or a dash where there is none."""
    return "–" if row.get("low") is None else f"{write(row['low'], kind)} to {write(row['high'], kind)}"


def side(levels: Mapping[str, str]) -> str:
    """A side of a comparison: `factor level, factor level`."""
    return ", ".join(f"{factor} {level}" for factor, level in levels.items())


def metric_name(results: Json, name: str) -> str:
    """`headline (accuracy, %)`: a metric with its unit and sense."""
    kind = results["metrics"][name]["kind"]
    return f"{name} ({'accuracy, %' if kind == 'accuracy' else 'bits per byte, lower is better'})"


def progress_line(results: Json) -> str:
    """How much of the study is done."""
    runs = results["runs"]
    done = runs.get("complete", 0)
    more = [f"{runs[s]} {s}" for s in ("failed", "missing") if runs.get(s)]
    return f"{done} of {runs['total']} runs are complete" + (f" ({', '.join(more)})" if more else "") + "."


def claims_table(results: Json) -> Table:
    """A line per claim: effect, interval, p, verdict."""
    head = [
        "claim",
        "b",
        "against a",
        "metric",
        "expected",
        "effect",
        "interval",
        "p (Holm)",
        "seeds",
        "finds",
        "verdict",
    ]
    rows = []
    for c in results["contrasts"]:
        kind = results["metrics"][c["metric"]]["kind"]
        detectable = size(c["detectable"], kind)
        rows.append(
            [
                c["claim"] or c["name"],
                side(c["b"]),
                side(c["a"]),
                c["metric"],
                c["expect"],
                effect(c["effect"], kind),
                interval(c, kind, effect),
                p_value(c["p_holm"]) if c["p_holm"] is not None else "–",
                f"{len(c['seeds'])} of {len(results['seeds'])}",
                detectable,
                c["verdict"],
            ]
        )
    return head, rows


def claim_sentences(results: Json) -> list[str]:
    """Each claim with its verdict in a line."""
    lines = []
    for c in results["contrasts"]:
        kind = results["metrics"][c["metric"]]["kind"]
        told = f"{c['name']}{': ' + c['claim'] if c['claim'] else ''}: {c['verdict']}. {side(c['b'])} against {side(c['a'])} on {c['metric']}"
        if c["effect"] is None:
            lines.append(f"{told}: no seed has both yet.")
            continue
        unit = " points" if kind == "accuracy" else ""
        p = f", p {p_value(c['p_holm'])}" if c["p_holm"] is not None else ""
        finds = f", finds {size(c['detectable'], kind)}{unit}" if c["detectable"] is not None else ""
        lines.append(
            f"{told}: {effect(c['effect'], kind)}{unit} ({interval(c, kind, effect)}{p}, {len(c['seeds'])} of {len(results['seeds'])} seeds{finds})."
        )
    return lines


def arms_table(results: Json) -> Table:
    """A line per arm: its levels, and every metric's mean and interval over seeds."""
    factors, metrics = list(results["factors"]), results["metrics"]
    head = [*factors, "seeds", *[c for m in metrics for c in (metric_name(results, m), "interval")]]
    rows = []
    for arm in results["arms"]:
        done = sum(run["state"] == "complete" for run in arm["runs"])
        cells = [arm["levels"][f] for f in factors] + [f"{done} of {len(arm['runs'])}"]
        for name, metric in metrics.items():
            v = arm["values"][name]
            cells += [value(v["mean"], metric["kind"]), interval(v, metric["kind"], value)]
        rows.append(cells)
    return head, rows


def effects_table(results: Json) -> Table:
    """Every level against its baseline, on every metric."""
    head = ["metric", "factor", "level", "against", "effect", "interval", "p (Holm)", "seeds"]
    rows = []
    for e in results["effects"]:
        kind = results["metrics"][e["metric"]]["kind"]
        p = p_value(e["p_holm"]) if e["p_holm"] is not None else "–"
        against = results["factors"][e["factor"]]["baseline"]
        rows.append(
            [
                e["metric"],
                e["factor"],
                e["level"],
                against,
                effect(e["effect"], kind),
                interval(e, kind, effect),
                p,
                str(len(e["seeds"])),
            ]
        )
    return head, rows


def flops(number: float | None) -> str:
    """1.2e12 -> `1.2 TFLOP`."""
    if number is None:
        return "–"
    power = 0
    while abs(number) >= 1000 and power < 7:
        number, power = number / 1000, power + 1
    return f"{number:.3g} {'kMGTPEZ'[power - 1] if power else ''}FLOP"


def budget_table(results: Json) -> Table:
    """What each arm read and cost, a line per training stage and one for the whole run."""
    head = ["arm", "stage", "corpus", "steps", "tokens", "trained tokens", "bytes", "epochs", "FLOPs", "minutes"]
    rows = [
        [
            b["arm"],
            b["stage"] or "whole run",
            b["corpus"] or "",
            *(count(b[key]) for key in ("steps", "tokens", "trained_tokens")),
            bytes_of(b["bytes"]),
            "" if b["stage"] is None else "–" if b["epochs"] is None else f"{b['epochs']:.2f}",
            flops(b["flops"]),
            f"{b['seconds'] / 60:.1f}",
        ]
        for b in results["budgets"]
    ]
    return head, rows


#: Numbers of seeds of the power table.
POWER_AT = (3, 5, 10, 20)


def power_table(results: Json) -> Table:
    """What more seeds would find: the smallest difference of the primary metric per comparison and number of seeds."""
    power, kind = results["power"], results["metrics"][results["power"]["metric"]]["kind"]
    head = [
        "comparison",
        "seeds so far",
        *(f"{n} seeds find" for n in POWER_AT),
        f"seeds for the margin of {size(power['margin'], kind)}",
    ]
    rows = []
    for c in power["curves"]:
        found = dict(zip(power["seeds"], c["detectable"]))
        enough = str(c["enough"] or f"more than {power['seeds'][-1]}")
        rows.append([c["name"], str(c["seeds"]), *(size(found[n], kind) for n in POWER_AT), enough])
    return head, rows


def forgetting_table(results: Json) -> Table:
    """Bits per byte of every model of every arm by language, and the change against the arm's first model."""
    languages = list(dict.fromkeys(r["language"] for r in results["forgetting"]))
    head = ["arm", "model", *[c for lang in languages for c in (f"{lang}: bits per byte", "change")]]
    rows: dict[tuple[str, str], dict[str, Json]] = {}
    for r in results["forgetting"]:
        rows.setdefault((r["arm"], r["model"]), {})[r["language"]] = r
    table = []
    for (arm, model), by_language in rows.items():
        cells = [arm, model]
        for lang in languages:
            r = by_language.get(lang, {})
            change = r.get("change")
            told = f"{effect(change['effect'], 'bits')} ({interval(change, 'bits', effect)})" if change else ""
            cells += [value(r.get("mean"), "bits"), told]
        table.append(cells)
    return head, table


def sources_table(results: Json) -> Table:
    """Bits per byte of each arm's last model by corpus and source."""
    arms = [arm["name"] for arm in results["arms"]]
    texts = list(dict.fromkeys((r["corpus"], r["source"], r["language"]) for r in results["bits_per_byte"]))
    found = {(r["arm"], r["corpus"], r["source"]): r["mean"] for r in results["bits_per_byte"]}
    rows = [[*text, *(value(found.get((arm, *text[:2])), "bits") for arm in arms)] for text in texts]
    return ["corpus", "source", "language", *arms], rows


SECTIONS: tuple[tuple[str, Callable[[Json], Table]], ...] = (
    ("Claims", claims_table),
    ("Arms", arms_table),
    ("What each arm read and cost", budget_table),
    ("Effects of every level", effects_table),
    ("What more seeds would find", power_table),
    ("Forgetting", forgetting_table),
    ("Bits per byte by source, last model", sources_table),
)


def failures(results: Json) -> list[str]:
    """`arm, seed: sentence` of each run that failed."""
    return [
        f"{arm['name']}, seed {run['seed']}: {run['error']}"
        for arm in results["arms"]
        for run in arm["runs"]
        if run["state"] == "failed"
    ]


def study_markdown(results: Json) -> str:
    """The whole report as Markdown; names and sentences are escaped."""
    e = escape_markdown
    lines = [f"# {e(results['name'])}", ""]
    if results["description"]:
        lines += [e(results["description"]), ""]
    confidence = f"{100 * results['confidence']:g} %"
    lines += [
        f"Recipe {e(results['recipe'])}; {len(results['arms'])} arms, seeds {', '.join(map(str, results['seeds']))}. {progress_line(results)}",
        f"Intervals are {confidence}, over seeds and questions; p is corrected by Holm over the claims; `finds` is the smallest effect that all "
        "seeds would find with a probability of 80 %. Accuracies differ in points, bits per byte in per cent.",
        "",
    ]
    lines += [f"- Failed: {e(sentence)}" for sentence in failures(results)]
    lines += [f"- {e(note)}" for note in results["notes"]]
    for title, make in SECTIONS:
        head, rows = make(results)
        if rows:
            lines += ["", f"## {title}", "", _pipes([e(h) for h in head]), _pipes(["---"] * len(head))]
            lines += [_pipes([e(cell) for cell in row]) for row in rows]
    if made := made_line(results):
        lines += ["", e(made)]
    return "\n".join(lines) + "\n"


def made_line(results: Json) -> str:
    """Where the runs were made, with what, and what sharing saved."""
    made = results["made"]
    if not made["machines"]:
        return ""
    packages = ", ".join(
        f"{name} {made['versions'][name]}" for name in ("torch", "transformers") if name in made["versions"]
    )
    saved = f"{made['seconds'] / 60:.1f} of {made['seconds_without_sharing'] / 60:.1f} minutes"
    return (
        f"Made with pandallm {', '.join(made['pandallm'])}, {packages}, on {'; '.join(made['machines'])}. "
        f"Stages that several runs need were made once: {saved} of work."
    )


def study_latex(results: Json) -> str:
    """The claims and the arms as two LaTeX tables (package booktabs)."""
    return "\n".join(_tabular(*make(results)) for _, make in SECTIONS[:2])


def _tabular(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        rf"\begin{{tabular}}{{{'l' * len(head)}}}",
        r"\toprule",
        " & ".join(map(escape_latex, head)) + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join(map(escape_latex, row)) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
