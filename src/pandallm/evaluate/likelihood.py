"""Log-likelihood of answers, equal to lm-evaluation-harness's, with every shared token computed once.

All requests about one passage form a tree of tokens: the passage, then its prompts and questions, then their options.
Trees are laid one after the other without padding; each token attends to its ancestors only, and its position is its
depth, so that one forward pass gives the same log-probabilities as one pass per option. The vocabulary projection runs
only where an answer's token is predicted, and its softmax in float32.

Shapes: N tokens of a batch of trees, D hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pandallm.evaluate.choices import NO_TOKENS
from pandallm.evaluate.encode import Encoded, Request
from pandallm.evaluate.tree_attention import TREE_ATTENTION, tree_hidden, tree_layout

#: Tokens that a question may add to a tree beyond its first question's, before another tree begins: every token of the
#: tail is compared with the whole tree, so that at some size reading the passage again costs less.
TAIL_TOKENS = 1024
#: Tokens of the little tree by which a model is tried at first.
PROBE_TOKENS = 48
#: Predicted positions whose V logits are held at once.
HEAD_POSITIONS = 512


@dataclass
class Row:
    """A tree of tokens in depth-first order of arrival: `parents[i]` < i, -1 at a root."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    children: dict[tuple[int, int], int] = field(default_factory=dict)
    questions: list[int] = field(default_factory=list)
    picks: list[tuple[int, int, list[int], list[int]]] = field(default_factory=list)  # question, option, nodes, targets

    def add(self, question: int, requests: Sequence[Request]) -> None:
        """Insert the inputs of one question's requests and remember where their answers are predicted."""
        self.questions.append(question)
        for option, request in enumerate(requests):
            path, node = [], -1
            for token in request.tokens[:-1]:
                key = (node, token)
                found = self.children.get(key)
                if found is None:
                    found = self.children[key] = len(self.tokens)
                    self.tokens.append(token)
                    self.depths.append(self.depths[node] + 1 if node >= 0 else 0)
                    self.parents.append(node)
                node = found
                path.append(node)
            nodes = path[request.start - 1 :]
            self.picks.append((question, option, nodes, list(request.tokens[request.start :])))

    def missing(self, requests: Sequence[Request]) -> int:
        """How many tokens `add` would add, at most (what two options share beyond the first's is counted twice)."""
        total, first = 0, requests[0].tokens[:-1]
        for request in requests:
            tokens, node, depth = request.tokens[:-1], -1, 0
            while depth < len(tokens) and (found := self.children.get((node, tokens[depth]))) is not None:
                node, depth = found, depth + 1
            if request is not requests[0]:
                common = next(
                    (i for i, (x, y) in enumerate(zip(first, tokens)) if x != y), min(len(first), len(tokens))
                )
                depth = max(depth, common)
            total += len(tokens) - depth
        return total


def build_rows(questions: Sequence[Encoded], groups: Sequence[str], tail_tokens: int = TAIL_TOKENS) -> list[Row]:
    """Trees of consecutive questions of one group (passage).

    A question joins the tree of its group to which it adds least, while that tree stays within `tail_tokens` of its
    first question; so prompts that begin with the passage share it, and another prompt's trees stand beside.
    """
    rows: list[Row] = []
    room: list[int] = []  # tokens up to which each row of this group may grow
    last = None
    for i, (question, group) in enumerate(zip(questions, groups)):
        if group != last:
            last, room = group, []
        open_rows = rows[len(rows) - len(room) :]
        added = [row.missing(question.requests) for row in open_rows]
        fits = [r for r, row in enumerate(open_rows) if len(row.tokens) + added[r] <= room[r]]
        best = min(fits, key=added.__getitem__, default=None)
        # A question that shares nothing would only fill another's tail.
        if best is not None and added[best] < Row().missing(question.requests):
            open_rows[best].add(i, question.requests)
        else:
            row = Row()
            row.add(i, question.requests)
            rows.append(row)
            room.append(len(row.tokens) + tail_tokens)
    return rows


def batches(lengths: Sequence[int], batch_tokens: int, padded: bool = True) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first; at most `batch_tokens` each, or a single one.

    `padded`: each counts as long as the longest of its batch.
    """
    batch: list[int] = []
    total = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        size = lengths[batch[0]] if padded and batch else lengths[i]
        if batch and total + size > batch_tokens:
            yield batch
            batch, total, size = [], 0, lengths[i]
        batch.append(i)
        total += size
    if batch:
        yield batch


class Scorer:
    """Scores requests with one model (already on its device, in eval mode); sets its attention."""

    def __init__(self, model: Any, batch_tokens: int) -> None:
        self.model, self.batch_tokens = model, batch_tokens
        if hasattr(model, "set_attn_implementation"):
            model.set_attn_implementation(TREE_ATTENTION)
        self.device = next(model.parameters()).device
        self.dtype = next(model.parameters()).dtype
        self.shared: bool | None = None  # whether tree rows agree with plain ones; set by the first batch
        #: Set to a dict, it receives per question whether each option is what greedy decoding would write.
        self.greedy: dict[int, list[bool]] | None = None

    def score(
        self,
        questions: Sequence[Encoded],
        groups: Sequence[str],
        done: Callable[[int], bool] = lambda i: False,
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Yields batches of (question index, summed log-probability of each option in nats).

        `groups[i]` is equal for consecutive questions that share a passage. Batches do not depend on `done` (questions
        already scored), so that a resumed evaluation computes the same numbers.
        """
        rows = build_rows(questions, groups)
        for batch in batches([len(r.tokens) for r in rows], self.batch_tokens, padded=False):
            indices = [q for r in batch for q in rows[r].questions]
            if all(done(q) for q in indices):
                continue
            if self.shared is None:
                self.shared = self._probe(questions[indices[0]].requests[0])
            # A sliding window would hide the passage's beginning, which a tree does not do.
            window = getattr(self.model.config, "sliding_window", None)
            shared = self.shared and (window is None or max(max(rows[r].depths) for r in batch) < window)
            scores = self._score_rows([rows[r] for r in batch]) if shared else {}
            for q in indices if not shared else ():
                greedy: list[bool] | None = None
                if self.greedy is not None:
                    greedy = self.greedy[q] = []
                scores[q] = self.score_plainly(questions[q].requests, greedy)
            yield [(q, scores[q]) for q in indices]

    def _probe(self, request: Request) -> bool:
        """Whether this architecture honours the tree's mask: a small tree of two branches scores as two plain passes."""
        tokens = (request.tokens * PROBE_TOKENS)[:PROBE_TOKENS]
        cut = PROBE_TOKENS * 3 // 4
        branches = [Request(tokens, cut), Request(tokens[:cut] + tokens[PROBE_TOKENS - cut - 1 :: -1], cut)]
        row = Row()
        row.add(0, branches)
        try:
            shared = self._score_rows([row])[0]
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError):
            return False
        plain = self.score_plainly(branches)
        tolerance = 1e-3 if self.dtype == torch.float32 else 0.5
        return all(abs(a - b) <= tolerance for a, b in zip(shared, plain))

    @torch.inference_mode()
    def score_plainly(self, requests: Sequence[Request], greedy: list[bool] | None = None) -> list[float]:
        """The reference: one forward pass per request through the whole model, no mask, no cache."""
        out = []
        for request in requests:
            targets = torch.tensor(request.tokens[request.start :], device=self.device)
            if not len(targets):
                out.append(NO_TOKENS)
                if greedy is not None:
                    greedy.append(True)
                continue
            inputs = torch.tensor([request.tokens[:-1]], device=self.device)
            logits = self.model(input_ids=inputs, use_cache=False).logits[0, request.start - 1 :].float()
            picked = torch.log_softmax(logits, -1).gather(1, targets[:, None])
            out.append(float(picked.sum()))
            if greedy is not None:
                greedy.append(bool((logits.argmax(-1) == targets).all()))
        return out

    @torch.inference_mode()
    def _score_rows(self, rows: Sequence[Row]) -> dict[int, list[float]]:
        trees = tree_layout([row.parents for row in rows], self.device)
        tokens_N = [t for row in rows for t in row.tokens]
        depths_N = [d for row in rows for d in row.depths]
        hidden_ND = tree_hidden(self.model, tokens_N, depths_N, trees)

        # One projection per predicting token, however many options are predicted there (letters: one for all).
        places: dict[int, int] = {}
        wanted: list[tuple[int, int]] = []
        owners: list[tuple[int, int]] = []
        for tree, row in zip(trees, rows):
            for question, option, nodes, targets in row.picks:
                for node, target in zip(nodes, targets):
                    wanted.append((places.setdefault(tree.start + node, len(places)), target))
                    owners.append((question, option))
        scores = {q: [NO_TOKENS] * n for row in rows for q, n in _options(row).items()}
        if not wanted:
            return scores
        selected_KD = hidden_ND[torch.tensor(list(places), device=self.device)]
        wanted_M2 = torch.tensor(wanted, device=self.device)
        best_K = None if self.greedy is None else torch.empty(len(selected_KD), dtype=torch.long, device=self.device)
        values = token_log_probabilities(self.model, selected_KD, wanted_M2, best_K).tolist()
        if self.greedy is not None and best_K is not None:
            for row in rows:
                self.greedy.update({q: [True] * n for q, n in _options(row).items()})
            for (question, option), hit in zip(owners, (best_K[wanted_M2[:, 0]] == wanted_M2[:, 1]).tolist()):
                self.greedy[question][option] &= hit
        for (question, option), value in zip(owners, values):
            before = scores[question][option]
            scores[question][option] = value if before == NO_TOKENS else before + value
        return scores


def _options(row: Row) -> dict[int, int]:
    counts: dict[int, int] = {}
    for question, option, _, _ in row.picks:
        counts[question] = option + 1
    return counts


def token_log_probabilities(
    model: Any, hidden_ND: torch.Tensor, wanted_M2: torch.Tensor, best_N: torch.Tensor | None = None
) -> torch.Tensor:
    """Log-probability (nats, float32) of each (row of hidden_ND, token) in `wanted_M2` -> [M]; V logits in chunks.

    `best_N`, where given, receives the most probable token of each row.
    """
    head = model.get_output_embeddings()
    out = torch.empty(len(wanted_M2), dtype=torch.float32, device=hidden_ND.device)
    for start in range(0, len(hidden_ND), HEAD_POSITIONS):
        logits_NV = head(hidden_ND[start : start + HEAD_POSITIONS]).float()
        if best_N is not None:
            best_N[start : start + HEAD_POSITIONS] = logits_NV.argmax(-1)
        inside = (wanted_M2[:, 0] >= start) & (wanted_M2[:, 0] < start + HEAD_POSITIONS)
        rows, tokens = wanted_M2[inside, 0] - start, wanted_M2[inside, 1]
        out[inside] = logits_NV[rows, tokens] - torch.logsumexp(logits_NV, -1)[rows]
    return out
