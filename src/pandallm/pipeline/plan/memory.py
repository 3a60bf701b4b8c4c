"""Memory of one training process, from the model's shape and the stage's settings.

D width, A heads, K key-value heads, H head size, F MLP width, L layers, V rows of the embedding, M tokens of a micro-batch.
Weights, gradients and AdamW's two moments are float32 (16 bytes a trained parameter; Rajbhandari et al. 2020, ZeRO, section 3.1,
without their 16-bit copies, which are counted apart). What is kept for backward per token and layer was counted with torch's
saved-tensor hooks on this package's forward, for float32 and bfloat16 on a CPU and for bfloat16 autocast.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Literal

from pandallm.model.shape import ModelShape
from pandallm.train.spec import LoraMethod, TrainSpec

Kind = Literal["cpu", "gpu"]
SHARDINGS = ("replicate", "shard_gradients", "hybrid", "shard_all")

#: As in train/loss.py: logits held at once, in numbers.
CHUNK_LOGITS = {"cpu": 2**24, "gpu": 2**28}
CHUNK_BFLOAT16_CPU = 2**26
SOFTMAX_LOGITS_CPU = 2**19
#: Python with torch and transformers loaded, and what a first step loads: measured on Linux with torch 2.13 for the CPU; a guess for a CUDA context.
RUNTIME_BYTES = {"cpu": 0.535e9, "gpu": 1.5e9}
#: Rows of unlike examples are padded in float32 attention on a CPU, at most twofold.
PADDING = 1.15
#: glibc keeps the holes that activations leave: resident by alive bytes, measured on a CPU at 4,096 tokens of a model of 11 million parameters.
CPU_HOLES = {"float32": 1.85, "bfloat16": 1.6}
#: Part of a GPU's memory that is planned with: its allocator has holes too, and part of it is not for programs.
GPU_SHARE = 0.92
#: NF4 with double quantisation (Dettmers et al. 2023, QLoRA, section 3): bits of a frozen weight.
NF4_BITS = 4.127


@dataclass(frozen=True)
class Parts:
    """Numbers of a model's parameters: matrices of the decoder layers, which sharding cuts, and the rest, which stays whole on every
    rank (embedding, head, vectors)."""

    matrices: float
    rest: float
    trained_matrices: float
    trained_rest: float
    trained_head: bool
    adapters: float = 0.0

    @property
    def trained(self) -> float:
        return self.trained_matrices + self.trained_rest + self.adapters


@dataclass(frozen=True)
class Memory:
    """Bytes of one process. `alive`: the peak of what is in use; `peak`: with what the allocator keeps. `snapshot`: the copy that a
    checkpoint is written from, in the host's memory."""

    weights: float
    gradients: float
    optimizer: float
    copies: float
    activations: float
    loss: float
    snapshot: float
    runtime: float
    alive: float
    peak: float

    def to_json(self) -> dict[str, float]:
        """GiB, rounded."""
        return {name: round(value / 2**30, 3) for name, value in asdict(self).items()}


def named_sizes(shape: ModelShape) -> Iterator[tuple[str, float, bool]]:
    """(name, numbers, whether a matrix of a decoder layer) of each parameter as transformers names them."""
    width, head = shape.hidden_size, shape.head_size
    layer = {
        "self_attn.q_proj.weight": width * shape.heads * head,
        "self_attn.k_proj.weight": width * shape.kv_heads * head,
        "self_attn.v_proj.weight": width * shape.kv_heads * head,
        "self_attn.o_proj.weight": width * shape.heads * head,
        "mlp.gate_proj.weight": width * shape.intermediate_size,
        "mlp.up_proj.weight": width * shape.intermediate_size,
        "mlp.down_proj.weight": width * shape.intermediate_size,
    }
    vectors = shape.layer_parameters - shape.matrices_per_layer
    yield "model.embed_tokens.weight", shape.vocab_size * width, False
    for i in range(shape.layers):
        for name, size in layer.items():
            yield f"model.layers.{i}.{name}", size, True
        yield f"model.layers.{i}.input_layernorm.weight", vectors, False
    yield "model.norm.weight", width, False
    if not shape.tie_embeddings:
        yield "lm_head.weight", shape.vocab_size * width, False


def model_parts(shape: ModelShape, spec: TrainSpec) -> Parts:
    """What of the model is trained, by the rules of train/method.py."""
    sizes = list(named_sizes(shape))
    embeddings = {"model.embed_tokens.weight", "lm_head.weight"}

    def named(patterns: tuple[str, ...], name: str) -> bool:
        for pattern in patterns:
            if pattern in ("embeddings", "new_rows"):
                if name in embeddings:
                    return True
            elif fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*"):
                return True
        return False

    chosen = {n for n, _, _ in sizes if named(spec.trainable, n) and not named(spec.freeze, n)}
    adapters = 0.0
    if isinstance(spec.method, LoraMethod):
        adapters = _adapters(shape, spec.method)
        whole = spec.method.train_embeddings or "embeddings" in spec.trainable or "new_rows" in spec.trainable
        chosen = chosen & embeddings if whole else set()
    matrices = sum(n for _, n, inside in sizes if inside)
    trained_matrices = sum(n for name, n, inside in sizes if inside and name in chosen)
    trained_rest = sum(n for name, n, inside in sizes if not inside and name in chosen)
    head = "model.embed_tokens.weight" if shape.tie_embeddings else "lm_head.weight"
    return Parts(matrices, shape.parameters - matrices, trained_matrices, trained_rest, head in chosen, adapters)


def _adapters(shape: ModelShape, method: LoraMethod) -> float:
    """Numbers of LoRA's A and B of every target layer."""
    attention, narrow = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    ends = {
        "q_proj": (shape.hidden_size, attention),
        "k_proj": (shape.hidden_size, narrow),
        "v_proj": (shape.hidden_size, narrow),
        "o_proj": (attention, shape.hidden_size),
        "gate_proj": (shape.hidden_size, shape.intermediate_size),
        "up_proj": (shape.hidden_size, shape.intermediate_size),
        "down_proj": (shape.intermediate_size, shape.hidden_size),
    }
    every = "all-linear" in method.targets
    total = 0
    for name, (inside, outside) in ends.items():
        if every or any(t.rsplit(".", 1)[-1] == name for t in method.targets):
            total += method.rank * (inside + outside) * shape.layers
    return float(total)


def layer_bytes_per_token(shape: ModelShape, dtype: str, kind: Kind) -> float:
    """What one decoder layer keeps of a token for its backward pass."""
    width, mlp = shape.hidden_size, shape.intermediate_size
    attention, narrow = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    if dtype == "float32":
        padded = PADDING if kind == "cpu" else 1.0
        # Twice x, normed x and the norm's output; the output's input; queries, keys, values and what attention gives; gate, its
        # activation, up, their product.
        attended = (2 * attention + 2 * narrow) * padded
        return 4 * (6 * width + attention + attended + 4 * mlp + shape.heads + 2)
    if kind == "cpu":  # model/bfloat16_cpu.py
        return 12 * width + 8 + 2 * attention + 2 * (attention + 2 * narrow) + 8 * mlp
    # Autocast: norms in float32, and each linear layer keeps a bfloat16 copy of its input of its own.
    return 26 * width + 8 + 2 * attention + 2 * (attention + 2 * narrow) + 8 * mlp + 4 * shape.heads


def kept_for_backward(
    shape: ModelShape, dtype: str, kind: Kind, checkpointing: bool | str, tokens: float
) -> tuple[float, float]:
    """Bytes kept by all layers of `tokens` tokens, and those that one layer makes again in backward."""
    layer = layer_bytes_per_token(shape, dtype, kind) * tokens
    if not checkpointing:
        return shape.layers * layer, 0.0
    entry = 4.0 * shape.hidden_size * tokens  # the residual stream that enters a layer, float32
    if checkpointing == "selective":  # train/recompute.py: products and attention in the dtype computed in
        number = 4 if dtype == "float32" else 2
        attention, narrow = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
        kept = 2 * attention + 2 * narrow + 2 * shape.hidden_size + 2 * shape.intermediate_size
        entry += number * tokens * kept
    return shape.layers * entry, layer


def loss_bytes(shape: ModelShape, dtype: str, kind: Kind, trained_tokens: float) -> float:
    """Logits of a chunk and what is made of them (train/loss.py)."""
    rows = shape.vocab_size
    if dtype != "float32" and kind == "cpu":
        chunk = min(trained_tokens, max(16, CHUNK_BFLOAT16_CPU // rows))
        return 2 * chunk * rows + 8 * min(SOFTMAX_LOGITS_CPU, chunk * rows)
    chunk = min(trained_tokens, max(16, CHUNK_LOGITS[kind] // rows))
    return (8 if dtype == "float32" else 10) * chunk * rows


def moment_bytes(parts: Parts, kind: str) -> tuple[float, float]:
    """Bytes of the optimizer per number of the layers' matrices, and of the rest."""
    if kind == "adamw8bit":
        return 2 + 8 / 256, 2 + 8 / 256
    return (4.0, 8.0) if kind == "muon" else (8.0, 8.0)


def stage_memory(
    shape: ModelShape,
    spec: TrainSpec,
    *,
    dtype: str,
    kind: Kind,
    tokens: float,
    micro_batches: float,
    trained_share: float,
    sharding: str = "replicate",
    gpus: int = 1,
    per_node: int = 8,
    checkpointing: bool | str | None = None,
) -> Memory:
    """Memory of one process of a stage.

    dtype: float32 or bfloat16, resolved. tokens: of the largest micro-batch. micro_batches: of a step on one process.
    checkpointing None: as the stage says.
    """
    checkpointing = spec.gradient_checkpointing if checkpointing is None else checkpointing
    parts = model_parts(shape, spec)
    divide = 1 if sharding == "replicate" or gpus == 1 else min(gpus, per_node) if sharding == "hybrid" else gpus
    frozen = parts.matrices - parts.trained_matrices
    four_bit = isinstance(spec.method, LoraMethod) and spec.method.kind == "qlora"
    matrix_bytes = 4 * parts.trained_matrices + (NF4_BITS / 8 if four_bit else 4) * frozen
    weights = matrix_bytes / divide + 4 * (parts.rest + parts.adapters)
    gradients = 4 * (parts.trained_matrices / divide + parts.trained_rest + parts.adapters)
    inside, outside = moment_bytes(parts, spec.optimizer.kind)
    optimizer = inside * parts.trained_matrices / divide + outside * (parts.trained_rest + parts.adapters)
    copies = gathered = 0.0
    head = shape.vocab_size * shape.hidden_size
    if dtype != "float32" and not four_bit:
        copies = 2.0 * (parts.matrices if divide == 1 else 0.0) + 2.0 * head
    if divide > 1:
        number = 4 if dtype == "float32" else 2
        layer = parts.matrices / shape.layers
        # Gathered weights: of all layers between the first forward and the last backward, or of this layer and the next one.
        gathered = number * (parts.matrices if sharding == "shard_gradients" else 2 * layer) + (4 + number) * layer
    kept, again = kept_for_backward(shape, dtype, kind, checkpointing, tokens)
    # Around the layers: the last norm, the hidden states' gradient, rotary angles.
    around = tokens * (6.0 if dtype != "float32" and kind == "cpu" else 12.0) * shape.hidden_size
    around += tokens * (16 + 8 * shape.head_size) + 4 * tokens * trained_share * shape.hidden_size
    logits = loss_bytes(shape, dtype, kind, tokens * trained_share)
    head_gradient = 4.0 * head if parts.trained_head else 0.0
    number = 4 if dtype == "float32" else 2
    moving = number * tokens * (3 * shape.intermediate_size + 4 * shape.hidden_size)
    held = weights + optimizer + copies + gathered
    earlier = gradients if micro_batches > 1 else 0.0
    at_head = earlier + kept + around + logits + head_gradient
    in_backward = earlier + kept + again + moving + head_gradient
    at_end = gradients + kept / shape.layers + again + moving
    if gpus > 1:  # one flat copy of every gradient that sharding does not sum
        at_end = max(at_end, gradients + 4 * (parts.trained if divide == 1 else parts.trained_rest + parts.adapters))
    most = max(at_head, in_backward, at_end)
    passing = most - max(0.0, min(most, gradients if micro_batches > 1 else head_gradient))
    trained = parts.trained_matrices / divide + parts.trained_rest + parts.adapters
    snapshot = 4 * trained + optimizer
    # Room for it is taken early and kept; beside a GPU it lies in the host's memory.
    top = held + most + (snapshot if kind == "cpu" else 0.0)
    runtime = RUNTIME_BYTES[kind]
    holes = CPU_HOLES[dtype] if kind == "cpu" else 1.0
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        copies=copies + gathered,
        activations=max(kept + around, kept + again + moving),
        loss=logits + head_gradient,
        snapshot=snapshot,
        runtime=runtime,
        alive=top + runtime,
        peak=top + (holes - 1) * passing + runtime,
    )


def micro_batch_tokens(spec: TrainSpec, row_tokens: float, rows_per_process: float) -> float:
    """Tokens of the largest micro-batch, by the rule of train/batch.py: whole rows up to the limit, one row at least."""
    row = min(spec.sequence_length, max(2.0, row_tokens))
    full = row > 0.9 * spec.sequence_length
    longest = float(spec.sequence_length if full else min(spec.sequence_length, 2 * row))
    room = longest * max(1, spec.micro_batch_tokens // longest) if full else float(spec.micro_batch_tokens)
    return max(min(longest, room), min(room, longest * max(1.0, rows_per_process)))
