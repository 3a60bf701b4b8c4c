"""vLLM as a backend (optional extra `vllm`). Not run against vLLM itself yet: written to its documented interface.

Used of it: `LLM(...)`, `LLM.generate(prompts, sampling_params)` with `TokensPrompt`, `SamplingParams` with `temperature`,
`max_tokens`, `stop` and `prompt_logprobs`, and of its results `prompt_logprobs` (one mapping from token id to an object
with `logprob` per prompt token, None for the first) and `outputs[0].text`. The tokens are made here, by the same rules as
for the local backend, so that both score the same ones.

vLLM's own guide says that a request for `prompt_logprobs` does not read its prefix cache; so scoring computes every
option's prompt anew here, and prefix caching helps generation only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.evaluate.backend import Answered, Asked, Scored
from pandallm.evaluate.choices import NO_TOKENS
from pandallm.evaluate.encode import Encoded, encode_asked, encode_prompts
from pandallm.evaluate.local import DEFAULT_WINDOW, folder_identity
from pandallm.evaluate.server import STOPS
from pandallm.model.spec import Dtype

#: Questions handed to vLLM at once; it batches within, and each lot is kept when it is over.
LOT = 256


class VllmBackend:
    """Backend of one model folder in vLLM. `devices`: how many GPUs share the model's layers (tensor parallelism).

    vLLM takes the first GPUs that CUDA_VISIBLE_DEVICES leaves it, so only their number counts. Raises BadInput where
    vLLM is not installed, the folder is no model, or a device is not a GPU.
    """

    def __init__(self, folder: Path, *, dtype: Dtype = "bfloat16", devices: Sequence[str] = ("auto",)) -> None:
        from pandallm.model.folder import check_model_folder, load_tokenizer
        from pandallm.store import read_json

        wrong = [d for d in devices if d != "auto" and not d.startswith("cuda")]
        if wrong:
            raise BadInput(f"--backend vllm runs on GPUs, not on {wrong[0]}: leave --device out or name cuda devices.")
        check_model_folder(folder)
        try:
            from vllm import LLM
        except ImportError as e:
            raise BadInput(
                f"--backend vllm needs vLLM ({e}): install it with `pip install pandallm[vllm]`, or use --backend local."
            ) from None
        self.folder, self.dtype = folder, dtype
        self.tokenizer = load_tokenizer(folder)
        self.max_length = int(read_json(folder / "config.json").get("max_position_embeddings") or DEFAULT_WINDOW)
        self.llm = LLM(
            model=str(folder),
            dtype=dtype,
            max_model_len=self.max_length,
            tensor_parallel_size=len(devices),
            enable_prefix_caching=True,
            seed=0,
            generation_config="vllm",  # none of the folder's sampling settings
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        """Content of the folder's files, chat template, dtype, and vLLM's version, whose kernels differ from ours."""
        import vllm

        return {
            "backend": "vllm",
            "vllm": str(vllm.__version__),
            "files": folder_identity(self.folder),
            "chat_template": str(getattr(self.tokenizer, "chat_template", None) or ""),
            "dtype": self.dtype,
            "device": "cuda",
        }

    def score(
        self, asked: Sequence[Asked], groups: Sequence[str], done: Callable[[int], bool] = lambda i: False
    ) -> Iterator[list[tuple[int, Scored]]]:
        """See `Backend.score`."""
        from vllm import SamplingParams

        # vLLM reads the last token, too, and must have room for one more: two tokens less than the local backend.
        encoded = encode_asked(self.tokenizer, asked, self.max_length - 2)
        # 1, not 0: the token's own is always given, and 0 was not always told apart from none.
        parameters = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=1, detokenize=False)
        for lot in _lots(len(asked), done):
            # Options with the same tokens (letters never, texts rarely) are computed once.
            wanted = list(dict.fromkeys(r.tokens for i in lot for r in encoded[i].requests))
            outputs = self._generate(wanted, parameters)
            found = {tokens: output.prompt_logprobs for tokens, output in zip(wanted, outputs, strict=True)}
            yield [(i, Scored(_scores(encoded[i], found), encoded[i].truncated > 0)) for i in lot]

    def generate(
        self,
        asked: Sequence[Asked],
        max_new_tokens: int,
        settled: Callable[[int, str], bool] = lambda i, text: False,
        done: Callable[[int], bool] = lambda i: False,
    ) -> Iterator[list[tuple[int, Answered]]]:
        """See `Backend.generate`. `settled` is not asked: completions end where the next question begins (`STOPS`)."""
        from vllm import SamplingParams

        new = min(max_new_tokens, self.max_length - 1)
        encoded = encode_prompts(self.tokenizer, asked, self.max_length - new)
        parameters = SamplingParams(temperature=0.0, max_tokens=new, stop=list(STOPS))
        for lot in _lots(len(asked), done):
            outputs = self._generate([encoded[i][0] for i in lot], parameters)
            yield [(i, Answered(output.outputs[0].text, encoded[i][1])) for i, output in zip(lot, outputs, strict=True)]

    def _generate(self, prompts: Sequence[Sequence[int]], parameters: Any) -> Any:
        from vllm import TokensPrompt

        tokens = [TokensPrompt(prompt_token_ids=list(p)) for p in prompts]
        return self.llm.generate(tokens, sampling_params=parameters, use_tqdm=False)


def _lots(n: int, done: Callable[[int], bool]) -> Iterator[list[int]]:
    todo = [i for i in range(n) if not done(i)]
    for start in range(0, len(todo), LOT):
        yield todo[start : start + LOT]


def _scores(encoded: Encoded, found: Mapping[tuple[int, ...], Any]) -> list[float]:
    """Summed log-probability in nats of each option's own tokens."""
    scores = []
    for request in encoded.requests:
        tokens, given = request.tokens, found[request.tokens]
        own = [float(given[k][tokens[k]].logprob) for k in range(request.start, len(tokens))]
        scores.append(sum(own) if own else NO_TOKENS)
    return scores
