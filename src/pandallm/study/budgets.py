"""What an arm read and cost: budget, token mix and data of one of its runs, from the run's manifest, recipe and ledgers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pandallm.store import read_json

Json = dict[str, Any]
#: What is kept of a source's token ledger.
MIX = ("exposures", "trained_exposures", "passes", "share", "wanted_share")


def budgets(runs: Mapping[str, tuple[int, Path]]) -> Json:
    """Budgets of the arms, each from one finished run (arm -> seed, folder).

    Returns {"budgets": [{"arm", "seed", "stage", "corpus", "steps", "tokens", "trained_tokens", "bytes", "epochs", "flops", "seconds"}], a line
    per training stage and one of stage None for the whole run (its seconds are those of all stages, also of data and evaluation);
    "mixes": [{"stage", "corpus", "arms", "sources": {source: MIX}}]; "data": [{"corpus", "arms", "sources": {source: {"records", "bytes", "kept",
    "held_out", "dropped", "quarantined"}}}], records where no unit is told; "contamination": [{"corpus", "arms", "ngram", "action", "tasks": {task:
    {"questions", "touched", "documents", "exclude"}}}]; arms that have the same stand in one entry}.

    bytes: of the records in the files, times their passes. flops: of the forward and backward passes by the model's shape, for the tokens
    read. epochs: tokens read over unique tokens. None where the run's files do not tell.
    """
    lines: list[Json] = []
    mixes: list[Json] = []
    data: list[Json] = []
    contamination: list[Json] = []
    for arm, (seed, folder) in runs.items():
        manifest = read_json(folder / "manifest.json")
        ledgers = {p.stem: read_json(p) for p in sorted((folder / "ledgers").glob("*.json"))}
        corpora = {name: ledger["sources"] for name, ledger in ledgers.items() if not name.startswith("pack-")}
        of_stage = _corpora(folder)
        own = []
        for stage in manifest["stages"]:
            if stage.get("kind") != "train":
                continue
            name = str(stage["name"]).removeprefix("train ")
            corpus = of_stage.get(name)
            pack = ledgers.get(f"pack-{name}", {}).get("ledger", {})
            sources = pack.get("sources") or {}
            own.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "stage": name,
                    "corpus": corpus,
                    **{key: stage["facts"].get(key) for key in ("steps", "tokens", "trained_tokens")},
                    "bytes": _bytes(sources, corpora.get(corpus or "", {})),
                    "epochs": _number(pack.get("total", {}).get("passes")),
                    "flops": _flops(stage["facts"]),
                    "seconds": stage["made_in_seconds"],
                }
            )
            if sources:
                kept = {s: {key: _number(entry.get(key)) for key in MIX} for s, entry in sources.items()}
                _share(mixes, arm, {"stage": name, "corpus": corpus, "sources": kept})
        if own:
            sums = {
                key: _sum([line[key] for line in own])
                for key in ("steps", "tokens", "trained_tokens", "bytes", "flops")
            }
            whole = {"arm": arm, "seed": seed, "stage": None, "corpus": None, **sums, "epochs": None}
            lines += [*own, whole | {"seconds": manifest["work_seconds"]}]
        for name, sources in corpora.items():
            _share(data, arm, {"corpus": name, "sources": {s: _fates(entry) for s, entry in sources.items()}})
        for path in sorted((folder / "contamination").glob("*.json")):
            report = read_json(path)
            tasks = {
                task: {
                    **{key: entry.get(key) for key in ("questions", "touched", "documents")},
                    "exclude": len(entry.get("exclude") or []),
                }
                for task, entry in report["tasks"].items()
            }
            found = {"corpus": path.stem, "ngram": report["ngram_chars"], "action": report["action"], "tasks": tasks}
            _share(contamination, arm, found)
    return {"budgets": lines, "mixes": mixes, "data": data, "contamination": contamination}


def _corpora(folder: Path) -> dict[str, str]:
    """Stage -> the corpus that it reads, as the run's recipe says; `base` is a model made from scratch."""
    import yaml

    path = folder / "recipe.yaml"
    recipe: Json = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = {name: stage["corpus"] for name, stage in (recipe.get("stages") or {}).items()}
    scratch = (recipe.get("base") or {}).get("scratch")
    return found | ({"base": scratch["train"]["corpus"]} if scratch else {})


def _bytes(tokens: Mapping[str, Json], records: Mapping[str, Json]) -> int | None:
    """Bytes of the records that training read, repeats counted: what is kept of each source, times how often its tokens were read."""
    total = 0.0
    for source, entry in tokens.items():
        if source not in records or entry.get("passes") is None:
            return None
        below = (entry.get("below_quality") or {}).get("bytes", 0)
        total += (records[source]["kept"]["bytes"] - below) * entry["passes"]
    return round(total) if tokens else None


def _flops(facts: Mapping[str, Any]) -> float | None:
    """FLOPs of the tokens read: what was planned for the stage, in proportion where it stopped before its end."""
    planned = facts.get("predicted") or {}
    if not planned.get("tokens") or planned.get("flops") is None or facts.get("tokens") is None:
        return None
    return float(f"{planned['flops'] * facts['tokens'] / planned['tokens']:.6g}")


def _fates(entry: Mapping[str, Any]) -> Json:
    """Records of a source, and what became of them."""
    return {
        "records": entry["records"],
        "bytes": entry["bytes"],
        **{fate: entry[fate]["records"] for fate in ("kept", "held_out", "quarantined")},
        "dropped": {reason: part["records"] for reason, part in entry["dropped"].items()},
    }


def _share(entries: list[Json], arm: str, found: Json) -> None:
    """Note what was found of an arm; arms of which the same was found stand together."""
    for entry in entries:
        if all(entry[key] == value for key, value in found.items()):
            entry["arms"].append(arm)
            return
    entries.append({**found, "arms": [arm]})


def _number(value: Any) -> Any:
    """Six places of a share; counts as they are."""
    return round(value, 6) if isinstance(value, float) else value


def _sum(values: Sequence[Any]) -> Any:
    return None if any(v is None for v in values) else sum(values)
