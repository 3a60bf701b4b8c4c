"""A release folder: its pages, written from the run's own files below `run/`, and the sums that hold it together.

Everything a page says follows from `run/` and `release.json`, so that a reader can write the pages again and compare.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, PandaError
from pandallm.progress import SILENT, Progress
from pandallm.release.cards import CardSources, model_card
from pandallm.release.data_card import data_card
from pandallm.release.licences import on_the_hub
from pandallm.release.markdown import table, text
from pandallm.release.weights import is_safe_path
from pandallm.store import digest_file, read_json, write_text

FORMAT = "panda-release"
#: Of the pages' text: raised when the same files give other pages, so that older releases are not called wrong.
PAGES_VERSION = 1
RELEASE = "release.json"
SUMS = "SHA256SUMS"
RUN = "run"
CITATION = "CITATION.cff"
MODEL_CARD = "README.md"
DATA_CARD = "DATA.md"
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def read_release(folder: Path) -> dict[str, Any]:
    """`release.json` of a release folder; BadInput where it is none, or of a later format."""
    path = folder / RELEASE
    if not path.is_file():
        raise BadInput(f"{folder} is no release folder (no {RELEASE}); give a folder that `panda release` wrote.")
    release = read_json(path)
    if not isinstance(release, dict) or release.get("format") != FORMAT:
        raise BadInput(f"{path} is not the {RELEASE} of a release folder.")
    if release.get("version") != 1:
        raise BadInput(f"{path} has version {release.get('version')!r}; this pandallm reads 1, so update pandallm.")
    if release.get("kind") != "data" and (release.get("kind"), release.get("ship")) not in (
        ("model", "weights"),
        ("model", "delta"),
    ):
        raise BadInput(f"{path} says neither model nor data, or neither weights nor delta; get the release again.")
    return release


def read_recipe(folder: Path) -> dict[str, Any]:
    """The resolved recipe of a run folder; empty where there is none."""
    import yaml

    path = folder / "recipe.yaml"
    if not path.is_file():
        return {}
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise BadInput(f"{path} is not valid YAML ({' '.join(str(e).split())}).") from None
    if not isinstance(value, dict):
        raise BadInput(f"{path} holds no recipe.")
    return value


def card_sources(run: Path, release: Mapping[str, Any]) -> CardSources:
    """What a run folder (or `run/` of a release) holds for its cards."""
    ledgers = {p.stem: read_json(p) for p in sorted((run / "ledgers").glob("*.json"))}
    tasks, manifest = run / "tasks.json", run / "manifest.json"
    stages = [s["name"] for s in read_json(manifest).get("stages", ())] if manifest.is_file() else []

    def order(name: str) -> tuple[int, str]:
        known = [f"{kind} {name}" for kind in ("clean", "pack")]
        return next((i for i, stage in enumerate(stages) if stage in known), len(stages)), name

    def in_order(found: Mapping[str, Any]) -> dict[str, Any]:
        return {name: found[name] for name in sorted(found, key=order)}

    return CardSources(
        ledgers=in_order({n: ledger for n, ledger in ledgers.items() if not n.startswith("pack-")}),
        packs=in_order({n.removeprefix("pack-"): pack for n, pack in ledgers.items() if n.startswith("pack-")}),
        contamination=in_order({p.stem: read_json(p) for p in (run / "contamination").glob("*.json")}),
        tasks=read_json(tasks) if tasks.is_file() else (),
        release=release,
    )


def pages(folder: Path) -> dict[str, str]:
    """The pages of a release folder, by file name, from `release.json` and the files below `run/`."""
    release, run = read_release(folder), folder / RUN
    recipe, sources = read_recipe(run), card_sources(run, release)
    if release["kind"] == "data":
        card = data_release_card(release, recipe, sources)
        return {MODEL_CARD: front_matter(data_metadata(release, recipe)) + card, CITATION: citation(release)}
    scores = run / "scores.json"
    card = model_card(read_json(run / "manifest.json"), read_json(scores) if scores.is_file() else {}, recipe, sources)
    data = data_card(
        f"{release['name']}: the data", recipe, sources.ledgers, sources.packs, sources.contamination
    )  # fmt: skip
    return {
        MODEL_CARD: front_matter(model_metadata(release, recipe)) + card,
        DATA_CARD: data,
        CITATION: citation(release),
    }


def front_matter(metadata: Mapping[str, Any]) -> str:
    """The hub's metadata block."""
    import yaml

    return f"---\n{yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)}---\n"


def _licence_metadata(name: str) -> dict[str, Any]:
    """The hub knows ids; anything else is `other` with a name."""
    if not name:
        return {}
    if on_the_hub(name):
        return {"license": name}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") or "other"}


def _languages(recipe: Mapping[str, Any]) -> list[str]:
    found = {
        s.get("language", "zh")
        for corpus in (recipe.get("corpora") or {}).values()
        for s in (corpus.get("sources") or {}).values()
    }
    return sorted(found)


def model_metadata(release: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Front matter of a model card."""
    delta = release["ship"] == "delta"
    data: dict[str, Any] = _licence_metadata(release["publish_as"])
    if release["base"].get("hub_id"):
        data |= {"base_model": release["base"]["hub_id"], "base_model_relation": "finetune"}
    datasets = sorted(
        {
            s["dataset"]["id"]
            for corpus in (recipe.get("corpora") or {}).values()
            for s in (corpus.get("sources") or {}).values()
            if s.get("dataset") and re.fullmatch(r"[\w.-]+/[\w.-]+", s["dataset"]["id"])
        }
    )
    return {
        **data,
        "language": _languages(recipe),
        **({"datasets": datasets} if datasets else {}),
        "library_name": "pandallm" if delta else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["pandallm", *(["weight-delta"] if delta else [])],
    }


def data_metadata(release: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Front matter of a data card; its `configs` are what `datasets.load_dataset` reads."""
    configs = [
        {
            "config_name": corpus,
            "data_files": [
                {"split": "train" if part == "examples" else part, "path": f"{corpus}/{part}/*.parquet"}
                for part, rows in parts.items()
                if rows
            ],
        }
        for corpus, parts in release["rows"].items()
        if any(parts.values())
    ]
    return {
        **_licence_metadata(release["publish_as"]),
        "language": _languages(recipe),
        "task_categories": ["text-generation"],
        "tags": ["pandallm"],
        "configs": configs,
    }


def data_release_card(release: Mapping[str, Any], recipe: Mapping[str, Any], sources: CardSources) -> str:
    """The page of a data release: what is in it, what was left out and why, then the data card of the whole run."""
    first = next((c for c, parts in release["rows"].items() if parts["examples"]), None)
    lines = [f"# {text(release['name'])}: the cleaned data", ""]
    if release.get("description"):
        lines += [text(release["description"]), ""]
    if first is None:
        lines += ["Nothing is published: no source's declared licence allows it.", ""]
    else:
        lines += [
            "```python",
            "from datasets import load_dataset",
            "",
            f'train = load_dataset("REPO-OR-FOLDER", "{first}", split="train")',
            "```",
            "",
            "A row holds `id`, `source`, `language`, `utf8_bytes`, `quality` and `turns`: a list of `{text, train}`. A plain document is one "
            "trained turn; instructions alternate untrained and trained ones. `held_out` was kept from training.",
            "",
        ]
    rows = [
        (corpus, source, entry["licence"], f"{entry['examples']:,}", f"{entry['held_out']:,}", entry["why"])
        for corpus, found in release["published"].items()
        for source, entry in found.items()
    ]
    if rows:
        lines += ["## Published", "", *table(("corpus", "source", "licence", "examples", "held out", "why"), rows)]
    left = [
        (corpus, source, entry["licence"], f"{entry['examples']:,}", entry["why"])
        for corpus, found in release["left_out"].items()
        for source, entry in found.items()
    ]
    lines += ["## Left out", ""]
    if left:
        lines += ["Used by the run, not published:", ""]
        lines += table(("corpus", "source", "licence", "examples", "why"), left)
    else:
        lines += ["Nothing: every source that the run used is here.", ""]
    whole = data_card("All that was read", recipe, sources.ledgers, {}, sources.contamination)
    return "\n".join(lines) + "\n" + re.sub(r"^#", "##", whole, flags=re.MULTILINE)


def citation(release: Mapping[str, Any]) -> str:
    """CITATION.cff, version 1.2.0."""
    import yaml

    kind = "the cleaned data" if release["kind"] == "data" else "a language model"
    authors = [{"name": a} for a in release.get("authors") or ()] or [{"name": f"The authors of {release['name']}"}]
    entry = {
        "cff-version": "1.2.0",
        "message": "If you use this, please cite it as below.",
        "type": "dataset" if release["kind"] == "data" else "software",
        "title": f"{release['name']}: {kind}, made with pandallm",
        "authors": authors,
        "version": f"seed {release['seed']}",
        "date-released": release["date"],
        **({"license": release["spdx"]} if release.get("spdx") else {}),
        **({"abstract": release["description"]} if release.get("description") else {}),
    }
    return yaml.safe_dump(entry, sort_keys=False, allow_unicode=True)


def release_files(folder: Path) -> list[str]:
    """Every file of a release folder that its sums must name; hidden ones (of git, of the hub's client) are none of its files."""
    names = (p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file() or p.is_symlink())
    return [n.as_posix() for n in names if not any(part.startswith(".") for part in n.parts) and n.as_posix() != SUMS]


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS, in the form that `sha256sum -c` reads."""
    write_text(folder / SUMS, "".join(f"{digest_file(folder / name)}  {name}\n" for name in release_files(folder)))


def check_sums(folder: Path, progress: Progress = SILENT) -> int:
    """Number of files, each of which has its sum; PandaError names the first that is missing, changed or unknown."""
    path = folder / SUMS
    if not path.is_file():
        raise PandaError(f"{folder} has no {SUMS}; get the release again.")
    known: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        match = _SUM_LINE.fullmatch(line)
        if match is None or not is_safe_path(match.group(2)) or match.group(2) in known:
            raise PandaError(f"{path}:{number} is not a line of sums; get the release again.")
        known[match.group(2)] = match.group(1)
    present = release_files(folder)
    if missing := sorted(known.keys() - set(present)):
        raise PandaError(f"{folder} lacks {missing[0]}, which {SUMS} names; get the release again.")
    if strange := [n for n in present if n not in known]:
        raise PandaError(f"{folder / strange[0]} is not in {SUMS}; take it away, or write the release again.")
    total = sum((folder / n).stat().st_size for n in present)
    with progress.task("check sums", total / 1e6, "MB") as task:
        for name, need in known.items():
            if (folder / name).is_symlink() and not (folder / name).resolve().is_file():
                raise PandaError(f"{folder / name} is a link to nothing; get the release again.")
            if digest_file(folder / name) != need:
                raise PandaError(f"{folder / name} is not what {SUMS} says (sha256 differs); get the release again.")
            task.advance((folder / name).stat().st_size / 1e6)
    return len(known)
