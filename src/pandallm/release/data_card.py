"""Data cards: which sources, under which licences, what became of every record, what touches a benchmark."""

from collections.abc import Mapping
from typing import Any

from pandallm.release.licences import may_republish
from pandallm.release.markdown import table, text


def sources_of(recipe: Mapping[str, Any], corpus: str) -> Mapping[str, Any]:
    """Settings of the sources of a corpus in a resolved recipe, by name."""
    found: Mapping[str, Any] = ((recipe.get("corpora") or {}).get(corpus) or {}).get("sources") or {}
    return found


def made_here(recipe: Mapping[str, Any], source: Mapping[str, Any]) -> bool:
    """Whether the recipe's synthetic world made this source."""
    files = source.get("files") or ()
    files = [files] if isinstance(files, str) else files
    return bool(recipe.get("world")) and bool(files) and all(str(f).startswith("${world}") for f in files)


def stated_licence(recipe: Mapping[str, Any], source: Mapping[str, Any]) -> str:
    """A source's declared licence, or what can be said without one."""
    return source.get("licence") or ("synthetic" if made_here(recipe, source) else "not stated")


def training_data(recipe: Mapping[str, Any], ledgers: Mapping[str, Any], packs: Mapping[str, Any]) -> list[str]:
    """A model card's section: sources with licences, kept records and bytes, and the tokens that each stage read."""
    if not ledgers:
        return []
    rows = []
    for corpus, ledger in ledgers.items():
        for name, entry in ledger["sources"].items():
            source = sources_of(recipe, corpus).get(name, {})
            kept = entry["kept"]
            rows.append(
                (
                    corpus,
                    name,
                    source.get("language", ""),
                    stated_licence(recipe, source),
                    f"{entry['records']:,}",
                    f"{kept['records']:,}",
                    f"{kept['bytes']:,}",
                )
            )
    lines = ["## Training data", ""]
    lines += table(("corpus", "source", "language", "licence", "records read", "records kept", "bytes kept"), rows)
    return lines + token_lines(packs)


def token_lines(packs: Mapping[str, Any]) -> list[str]:
    """Tokens of each stage by source; `unique = trained + masked + truncated + over budget`."""
    rows = []
    for stage, pack in packs.items():
        for name, e in {**pack["ledger"]["sources"], "total": pack["ledger"]["total"]}.items():
            wanted = e.get("wanted_share")
            rows.append(
                (
                    stage,
                    name,
                    *(f"{e[k]:,}" for k in ("unique", "trained", "masked", "truncated", "over_budget", "exposures")),
                    f"{e['passes']:.2f}",
                    f"{100 * e['share']:.1f} %" + (f" (wanted {100 * wanted:.1f} %)" if wanted is not None else ""),
                )
            )
    if not rows:
        return []
    head = ("stage", "source", "unique tokens", "trained", "masked", "truncated", "over budget", "read", "passes")
    return ["Tokens that each stage read:", "", *table((*head, "share"), rows)]


def contamination_lines(contamination: Mapping[str, Any]) -> list[str]:
    """Benchmarks that training text touches, from each corpus's contamination.json."""
    if not contamination:
        return ["## Contamination", "", "The training text was not compared with any benchmark.", ""]
    rows = []
    for corpus, found in contamination.items():
        for task, t in found["tasks"].items():
            rows.append(
                (
                    corpus,
                    task,
                    found["ngram_chars"],
                    found["action"],
                    f"{t['questions']:,}",
                    f"{t['touched']:,}",
                    f"{t['documents']:,}",
                    f"{len(t['exclude']):,}",
                )
            )
    return [
        "## Contamination",
        "",
        "Documents that share so many characters in a row with a question (`drop`: taken out, `report`: kept).",
        "",
        *table(
            (
                "corpus",
                "task",
                "characters",
                "action",
                "questions",
                "touched",
                "documents",
                "still touched by training",
            ),
            rows,
        ),
    ]


def data_card(
    title: str,
    recipe: Mapping[str, Any],
    ledgers: Mapping[str, Any],
    packs: Mapping[str, Any],
    contamination: Mapping[str, Any],
) -> str:
    """A data card, as Markdown: from the recipe, the ledgers, the packs and the contamination reports alone."""
    lines = [f"# {text(title)}", ""]
    for corpus, ledger in ledgers.items():
        lines += [f"## {text(corpus)}", "", *_settings(recipe, corpus), *_funnel(recipe, corpus, ledger)]
    tokens = token_lines(packs)
    lines += ["## Tokens", "", *tokens] if tokens else []
    return "\n".join([*lines, *contamination_lines(contamination)])


def _settings(recipe: Mapping[str, Any], corpus: str) -> list[str]:
    spec = (recipe.get("corpora") or {}).get(corpus) or {}
    lines = []
    if spec.get("clean"):
        lines.append("- cleaning: " + "; ".join(_step(s) for s in spec["clean"]))
    if spec.get("dedup"):
        lines.append("- duplicates: " + _step(spec["dedup"]))
    if against := (spec.get("decontaminate") or {}).get("against"):
        lines.append("- compared with benchmarks: " + text(", ".join(against)))
    return [*lines, ""] if lines else []


def _step(step: Mapping[str, Any]) -> str:
    rest = ", ".join(f"{k} {v}" for k, v in step.items() if k != "kind" and v not in (None, [], {}))
    return text(f"{step.get('kind', '')} ({rest})" if rest else step.get("kind", ""))


def _funnel(recipe: Mapping[str, Any], corpus: str, ledger: Mapping[str, Any]) -> list[str]:
    entries = {**ledger["sources"], "total": ledger["total"]}
    reasons = sorted(ledger["total"]["dropped"])
    head = ("source", "from", "language", "licence", "read", "kept", "held out", "quarantined", *reasons, "bytes read")
    rows = []
    for name, e in entries.items():
        source = sources_of(recipe, corpus).get(name, {}) if name != "total" else None
        rows.append(
            (
                name,
                "" if source is None else _origin(source),
                "" if source is None else source.get("language", ""),
                "" if source is None else stated_licence(recipe, source),
                f"{e['records']:,}",
                *(f"{e[k]['records']:,}" for k in ("kept", "held_out", "quarantined")),
                *(f"{e['dropped'].get(r, {}).get('records', 0):,}" for r in reasons),
                f"{e['bytes']:,}",
                f"{e['kept']['bytes']:,}",
            )
        )
    return ["Records; the parts add up to what was read.", "", *table((*head, "bytes kept"), rows)]


def _origin(source: Mapping[str, Any]) -> str:
    if dataset := source.get("dataset"):
        revision = f" ({dataset['revision']})" if dataset.get("revision") else ""
        return f"{dataset['id']}{revision}, {source.get('adapter', '')}"
    files = source.get("files") or ()
    return f"{', '.join([files] if isinstance(files, str) else files)}, {source.get('adapter', '')}"


def split_sources(
    recipe: Mapping[str, Any], corpora: Mapping[str, Any]
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """(published, left out): corpus -> source -> why, by each source's declared licence. corpora: corpus -> ledger."""
    published: dict[str, dict[str, str]] = {}
    left_out: dict[str, dict[str, str]] = {}
    for corpus, ledger in corpora.items():
        for name in ledger["sources"]:
            source = sources_of(recipe, corpus).get(name, {})
            allowed, why = may_republish(source.get("licence") or "", made_here(recipe, source))
            (published if allowed else left_out).setdefault(corpus, {})[name] = why
    return published, left_out
