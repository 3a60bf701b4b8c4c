"""What one run of a study measured: unit by unit (questions, held-out documents), from its folder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pandallm.store import read_jsonl

Array = NDArray[np.float64]
#: (task, question) or (source, document)
Unit = tuple[str, str]


@dataclass(frozen=True)
class Measured:
    """One metric of one run. `tops` / `bottoms`: right answers of 1, or bits of bytes; (units,). `value`: their sums' ratio."""

    units: tuple[Unit, ...]
    clusters: tuple[Unit, ...]
    tops: Array
    bottoms: Array

    @property
    def value(self) -> float:
        return float(self.tops.sum() / self.bottoms.sum())


class Run:
    """The rows of a finished run, read once."""

    def __init__(self, folder: Path, arm: Mapping[str, Any]) -> None:
        self._folder, self._arm = folder, arm
        self._tables: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._bits: list[dict[str, Any]] | None = None

    def measure(self, metric: Mapping[str, Any]) -> Measured | None:
        """A metric's units in the order of their names; None where this arm has no such model or text."""
        model = self._model(metric)
        return self.accuracy(metric, model) if metric["kind"] == "accuracy" else self.bits(metric, model)

    def floors(self, metric: Mapping[str, Any]) -> dict[str, float] | None:
        """What an accuracy is to be held against: {"chance", "constant": accuracy of the best answer that never changes, "unparsed": share
        of rows without an answer}; None for other metrics, and where nothing was asked."""
        rows = self._asked(metric, self._model(metric)) if metric["kind"] == "accuracy" else []
        if not rows:
            return None
        answers = np.bincount([row["answer"] for row in rows])
        return {
            "chance": float(np.mean([1 / row["options"] for row in rows])),
            "constant": float(answers.max() / len(rows)),
            "unparsed": float(np.mean([row["choice"] is None for row in rows])),
        }

    def _model(self, metric: Mapping[str, Any]) -> str:
        return str(self._arm["models"][-1] if metric["model"] == "last" else metric["model"])

    def _asked(self, metric: Mapping[str, Any], model: str) -> list[dict[str, Any]]:
        """The rows that an accuracy counts."""
        return [
            row
            for row in self._rows(model, metric["method"])
            if row["task"] in metric["tasks"]
            and (metric["prompts"] == "all" or row["prompt"] in metric["prompts"])
            and (metric["group"] is None or row["group"] == metric["group"])
        ]

    def accuracy(self, metric: Mapping[str, Any], model: str) -> Measured | None:
        """Per question: the share of prompts under which the model was right."""
        right: dict[Unit, list[bool]] = {}
        clusters: dict[Unit, Unit] = {}
        for row in self._asked(metric, model):
            unit = (row["task"], row["id"])
            right.setdefault(unit, []).append(row["correct"])
            clusters[unit] = (row["task"], row["cluster"])
        if not right:
            return None
        units = tuple(sorted(right))
        tops = np.array([np.mean(right[u]) for u in units], dtype=np.float64)
        return Measured(units, tuple(clusters[u] for u in units), tops, np.ones_like(tops))

    def by_prompt(self, metric: Mapping[str, Any]) -> dict[str, float]:
        """Prompt -> share of its questions that were answered right, in the order of the rows; empty where the metric is no accuracy."""
        right: dict[str, list[bool]] = {}
        for row in self._asked(metric, self._model(metric)) if metric["kind"] == "accuracy" else ():
            right.setdefault(row["prompt"], []).append(row["correct"])
        return {prompt: float(np.mean(answers)) for prompt, answers in right.items()}

    def bits(self, metric: Mapping[str, Any], model: str) -> Measured | None:
        """Per held-out document: bits and bytes."""
        found: dict[Unit, tuple[float, float]] = {}
        for row in self.bits_rows():
            if row["model"] == model and all(
                metric.get(field) is None or row[field] == metric[field] for field in ("corpus", "source", "language")
            ):
                found[row["source"], row["id"]] = (row["bits"], row["bytes"])
        if not found:
            return None
        units = tuple(sorted(found))
        values = np.array([found[u] for u in units], dtype=np.float64)
        return Measured(units, units, values[:, 0], values[:, 1])

    def bits_rows(self) -> list[dict[str, Any]]:
        """Every row of bits per byte."""
        if self._bits is None:
            path = self._folder / "bits_per_byte.jsonl"
            self._bits = list(read_jsonl(path)) if path.is_file() else []
        return self._bits

    def _rows(self, model: str, method: str) -> list[dict[str, Any]]:
        """Rows of the headline's kind: the first number of shots, the options in their own order."""
        import pyarrow.parquet as pq

        if (model, method) not in self._tables:
            columns = ["task", "prompt", "shots", "chat", "order", "id", "cluster", "group"]
            columns += ["options", "answer", "choice", "correct"]
            chosen = [("model", "==", model), ("method", "==", method)]
            table = pq.read_table(self._folder / "rows.parquet", columns=columns, filters=chosen)
            self._tables[model, method] = [
                row
                for row in table.to_pylist()
                if (row["shots"] or 0) == self._arm["shots"]
                and bool(row["chat"]) == self._arm["chat"]
                and not row["order"]
            ]
        return self._tables[model, method]


def common(measured: Sequence[Measured]) -> tuple[list[Measured], int]:
    """The same metric of several runs on the units that all of them have, and how many units that leaves out at most."""
    shared = set(measured[0].units).intersection(*(m.units for m in measured[1:]))
    left_out = max(len(m.units) for m in measured) - len(shared)
    return [m if len(m.units) == len(shared) else _only(m, shared) for m in measured], left_out


def _only(m: Measured, units: set[Unit]) -> Measured:
    keep = np.array([u in units for u in m.units])
    return Measured(
        tuple(u for u in m.units if u in units),
        tuple(c for c, k in zip(m.clusters, keep) if k),
        m.tops[keep],
        m.bottoms[keep],
    )


def rounded(value: float) -> float | None:
    """Six places; None where it is not a number (JSON has none)."""
    return round(value, 6) if math.isfinite(value) else None
