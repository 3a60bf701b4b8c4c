"""What every benchmark prints and writes."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

from pandallm import __version__
from pandallm.pipeline.machine import machine, versions


def result(name: str, figures: dict[str, Any], goals: dict[str, Any], met: bool, command: str) -> dict[str, Any]:
    """The JSON object of a benchmark."""
    return {
        "name": name,
        "device": machine(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {"pandallm": __version__, **versions()},
        "command": command,
        "figures": figures,
        "goals": goals,
        "met": met,
    }


def device_slug() -> str:
    """A file-name part for this machine: `cpu-2-cores`, or the GPU's name."""
    info = machine()
    text = info.get("gpu") or f"cpu-{os.cpu_count()}-cores"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def write(path: str | None, value: dict[str, Any]) -> None:
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"wrote {path}")
