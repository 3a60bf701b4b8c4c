"""lm-evaluation-harness's model interface on our scorer: its tasks, its numbers, every shared prefix read once.

Imports lm_eval (extra `lm-eval`); written and tested against 0.4.13. What reaches a model is tokenised by the rules of its
`hf` model, so that scores agree: white space at the context's end moves to the continuation, BOS is not doubled, too
long requests lose tokens on the left.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from pandallm.errors import BadInput
from pandallm.evaluate.encode import Encoded, Request
from pandallm.evaluate.generate import generate
from pandallm.evaluate.likelihood import TAIL_TOKENS, Scorer
from pandallm.evaluate.local import open_model
from pandallm.model.folder import load_tokenizer, resolve_device
from pandallm.store import read_json

#: Two contexts share a tree where at least this part of the shorter one is common.
SHARED_PART = 0.25
#: Contexts that are laid out at once: bounds the memory of the trees, not the size of a batch.
CHUNK = 4096
#: Length of a window where neither model nor tokenizer states one, and of an answer where the task states none; as in `hf`.
DEFAULT_LENGTH, DEFAULT_NEW_TOKENS = 2048, 256


class PandaLM(TemplateLM):
    """`--model pandallm --model_args pretrained=FOLDER[,dtype=float32,batch_tokens=8192,max_length=N,add_bos_token=True]`.

    `dtype`: float32, bfloat16, float16, or auto (what the folder states, as in `hf`). Batches are sized in tokens by
    `batch_tokens`; the harness's own batch size is ignored, and no score depends on it.
    """

    def __init__(
        self,
        pretrained: str,
        tokenizer: str | None = None,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        batch_tokens: int = 8192,
        max_length: int | None = None,
        max_gen_toks: int = DEFAULT_NEW_TOKENS,
        add_bos_token: bool | None = None,
    ) -> None:
        super().__init__()
        folder = Path(pretrained)
        if dtype == "auto" and (folder / "config.json").is_file():
            config = read_json(folder / "config.json")
            dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
        if dtype not in ("float32", "bfloat16", "float16"):
            raise BadInput(f"dtype: {dtype} is not supported; use float32, bfloat16, float16 or auto.")
        # lm_eval's command line names cuda:0 where the user names no device; `hf` falls back as well.
        if device is None or (device.startswith("cuda") and resolve_device("auto") == "cpu"):
            device = "auto"
        self.model, self.tokenizer = open_model(folder, dtype, device)  # type: ignore[arg-type]
        if tokenizer:
            self.tokenizer = load_tokenizer(Path(tokenizer))
        self.scorer = Scorer(self.model, int(batch_tokens))
        self.batch_tokens, self.max_gen_toks, self.add_bos_token = int(batch_tokens), int(max_gen_toks), add_bos_token
        self.max_length = int(max_length) if max_length else self._stated_length()
        self._device = self.scorer.device
        self.pretrained = pretrained
        self._prefix_text = str(self.tokenizer.decode(self.prefix_token_id))

    def _stated_length(self) -> int:
        config = getattr(self.model.config, "text_config", None) or self.model.config
        for name in ("n_positions", "max_position_embeddings", "n_ctx"):
            if getattr(config, name, None) is not None:
                return int(getattr(config, name))
        length = getattr(self.tokenizer, "model_max_length", None)
        # transformers writes "unset" as a number above any real length.
        return int(length) if length is not None and length < 10**12 else DEFAULT_LENGTH

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        bos = self.tokenizer.bos_token_id
        return int(bos if bos is not None else self.tokenizer.eos_token_id)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The turns as text; without the system's where the template refuses one."""
        from jinja2.exceptions import TemplateError

        def apply(turns: list[dict[str, str]]) -> str:
            return str(
                self.tokenizer.apply_chat_template(
                    turns,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                )
            )

        try:
            return apply(chat_history)
        except TemplateError:
            return apply([turn for turn in chat_history if turn["role"] != "system"])

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        if add_special_tokens is None:
            return self._encode([string])[0]
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with the tokenizer's special tokens, except where the text itself begins with BOS."""
        found: dict[int, list[int]] = {}
        begun = [has_bos_prefix(text, self._prefix_text) for text in texts]
        for begins in (False, True):
            indices = [i for i, b in enumerate(begun) if b == begins]
            if indices:
                special = False if begins else self.add_bos_token
                options = {} if special is None else {"add_special_tokens": special}
                ids = self.tokenizer([texts[i] for i in indices], **options)["input_ids"]
                found.update(zip(indices, ids))
        return [found[i] for i in range(len(texts))]

    def _pairs(self, asked: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """(context tokens, continuation tokens) of each (context, continuation)."""
        split = []
        for context, continuation in asked:
            kept = context.rstrip() if context else context
            split.append((kept, context[len(kept) :] + continuation))
        texts = list(
            dict.fromkeys(t for context, continuation in split for t in (context, context + continuation) if t)
        )
        ids = dict(zip(texts, self._encode(texts)))
        out = []
        for context, continuation in split:
            if context:
                c = ids[context]
                k = ids[context + continuation][len(c) :]
                # A merge across the boundary took the whole continuation: `hf` fails here.
                k = k or self.tok_encode(continuation, add_special_tokens=False)
            else:
                k = self.tok_encode(continuation, add_special_tokens=False)
                c = [self.prefix_token_id]
                if k[:1] == c and len(k) > 1:
                    k = k[1:]
            out.append((c, k))
        return out

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(summed log-probability in nats, whether greedy decoding would write it) of each request, in their order."""
        asked = [request.args for request in requests]
        return self._score(self._pairs(asked), disable_tqdm, asked)

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        return self._score([(c, k) for _, c, k in requests], disable_tqdm, [text for text, _, _ in requests])

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Summed log-probability of whole texts; long ones in windows that predict each token once, as `hf` cuts them."""
        pairs, owners = [], []
        for i, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            for window in get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1):
                pairs.append(make_disjoint_window(window))
                owners.append(i)
        totals = [0.0] * len(requests)
        for i, (score, _) in zip(owners, self._score(pairs, disable_tqdm)):
            totals[i] += score
        for request, total in zip(requests, totals):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def _score(
        self,
        pairs: Sequence[tuple[list[int], list[int]]],
        disable_tqdm: bool,
        asked: Sequence[tuple[str, str]] | None = None,
    ) -> list[tuple[float, bool]]:
        """Scores in the order of `pairs`. Contexts are put in the order of their tokens, so that neighbours share most."""
        by_context: dict[tuple[int, ...], list[int]] = {}
        for i, (c, _) in enumerate(pairs):
            by_context.setdefault(tuple(c), []).append(i)
        results: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        with tqdm(total=len(pairs), disable=disable_tqdm, desc="Scoring") as bar:
            order = sorted(by_context)
            for start in range(0, len(order), CHUNK):
                members = [by_context[c] for c in order[start : start + CHUNK]]
                encoded = [Encoded([self._request(*pairs[i]) for i in of], 0) for of in members]
                groups = prefix_groups([e.requests[0].tokens for e in encoded])
                greedy: dict[int, list[bool]] = {}
                self.scorer.greedy = greedy
                for batch in self.scorer.score(encoded, groups):
                    for question, scores in batch:
                        # Continuations without a token have no flags: nothing was left to be written otherwise.
                        flags = greedy.get(question) or [True] * len(scores)
                        for i, score, best in zip(members[question], scores, flags, strict=True):
                            results[i] = (score, best)
                            if asked is not None:
                                self.cache_hook.add_partial("loglikelihood", asked[i], results[i])
                        bar.update(len(scores))
                self.scorer.greedy = None
        return results

    def _request(self, context: list[int], continuation: list[int]) -> Request:
        tokens = (*context, *continuation)[-(self.max_length + 1) :]
        return Request(tokens, max(1, len(tokens) - len(continuation)))

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy completions, cut at the first stop text. Raises BadInput where a task asks for sampling."""
        results = [""] * len(requests)
        eos = str(self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False))
        kinds: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            kinds.setdefault(repr(request.args[1]), []).append(i)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Generating") as bar:
            for indices in kinds.values():
                settings = normalize_gen_kwargs(requests[indices[0]].args[1], self.max_gen_toks)
                if settings.get("do_sample"):
                    raise BadInput("A task asks for sampling; --model pandallm decodes greedily, use --model hf.")
                until = handle_stop_sequences(settings["until"], eos=eos)
                new = int(settings["max_gen_toks"])
                if new >= self.max_length:
                    raise BadInput(f"{new} new tokens do not fit a model of {self.max_length} tokens; ask for fewer.")
                texts = [requests[i].args[0] for i in indices]
                prompts = [ids[-(self.max_length - new) :] or [self.prefix_token_id] for ids in self._encode(texts)]
                stops = [stop for stop in until if stop]

                def over(_: int, text: str, stops: list[str] = stops) -> bool:
                    return any(stop in text for stop in stops)

                for batch in generate(self.model, self.tokenizer, prompts, new, self.batch_tokens, over):
                    for at, text in batch:
                        i = indices[at]
                        results[i] = postprocess_generated_text(text, until, None)
                        self.cache_hook.add_partial("generate_until", requests[i].args, results[i])
                    bar.update(len(batch))
        return results


def prefix_groups(contexts: Sequence[tuple[int, ...]]) -> list[str]:
    """A group per run of sorted `contexts` in which neighbours share enough to be read as one tree.

    A run also ends once what its members add to the first one would fill a tree (`TAIL_TOKENS`).
    """
    groups, group, added = ["0"] if contexts else [], 0, 0
    for before, after in pairwise(contexts):
        common = common_prefix(before, after)
        added += len(after) - common
        if common < SHARED_PART * min(len(before), len(after)) or added > TAIL_TOKENS:
            group, added = group + 1, 0
        groups.append(str(group))
    return groups


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix, by bisection (comparing slices is quick)."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def run_harness(arguments: Sequence[str]) -> None:
    """The harness's own command line, `lm_eval run ARGUMENTS`, with `--model pandallm` known (and the default)."""
    import sys

    from lm_eval.__main__ import cli_evaluate

    from pandallm.evaluate.exchange import register

    register()
    named = any(a in ("--model", "-M") or a.startswith("--model=") for a in arguments)
    before = sys.argv
    sys.argv = ["lm_eval", "run", *([] if named else ["--model", "pandallm"]), *arguments]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
