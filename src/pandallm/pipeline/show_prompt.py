"""`panda eval --show-prompt N`: exactly what a model reads and is scored on."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandallm.errors import BadInput
from pandallm.pipeline.evaluate_one import LoadedTasks

if TYPE_CHECKING:
    from pandallm.evaluate.spec import EvaluateSpec


def prompt_texts(model: Path, loaded: LoadedTasks, spec: "EvaluateSpec", number: int) -> list[dict[str, Any]]:
    """Question `number` (from 1, in file order) of each task under each prompt and variant.

    One object each: task, id, prompt, shots, chat, order, context, continuations, `tokens` (of the context alone) and
    `continuation_tokens` (what is scored), by the tokenizer of `model`; `utf8`: the context's bytes, hexadecimal.
    Raises BadInput where a task has no such question.
    """
    from pandallm.evaluate.ask import ask, chat_template, variants
    from pandallm.evaluate.encode import encode_questions, tokenize
    from pandallm.evaluate.select import selected_prompts
    from pandallm.evaluate.shots import Examples
    from pandallm.model.folder import load_tokenizer

    tokenizer = load_tokenizer(model)
    template = None if spec.chat == "off" else chat_template(tokenizer, model)
    out = []
    for task, questions in loaded.tasks:
        if not 1 <= number <= len(questions):
            raise BadInput(f"--show-prompt {number}: task {task.name} has questions 1 to {len(questions)}.")
        question = questions[number - 1]
        examples = Examples(questions, loaded.examples.get(task.name) or questions)
        for name in selected_prompts(task, spec.prompts):
            for v in variants(task.prompts[name], spec):
                if v.order >= len(question.options):
                    continue
                asked, _ = ask(task.prompts[name], question, v, examples, template)
                # As long as it may be: cutting depends on the model's window, not on the tokenizer.
                (encoded,) = encode_questions(tokenizer, [(asked.context, asked.continuations)], 10**9)
                out.append(
                    {
                        "task": task.name,
                        "id": question.id,
                        "prompt": name,
                        "shots": v.shots,
                        "chat": v.chat,
                        "order": v.order,
                        "context": asked.context,
                        "continuations": list(asked.continuations),
                        "utf8": asked.context.encode().hex(),
                        "tokens": tokenize(tokenizer, [asked.context])[0],
                        "continuation_tokens": [list(r.tokens[r.start :]) for r in encoded.requests],
                    }
                )
    return out


def print_prompts(prompts: list[dict[str, Any]]) -> None:
    """The same for people: contexts as they are, continuations quoted, so that white space is seen."""
    for p in prompts:
        how = [f"{p['shots']} examples"] if p["shots"] else []
        how += ["chat template"] if p["chat"] else []
        how += [f"options rotated by {p['order']}"] if p["order"] else []
        print(f"=== {p['task']}, question {p['id']}, prompt {p['prompt']}{''.join(', ' + h for h in how)}")
        print(p["context"])
        print(f"--- {len(bytes.fromhex(p['utf8']))} bytes, {len(p['tokens'])} tokens: {p['tokens']}")
        for text, tokens in zip(p["continuations"], p["continuation_tokens"]):
            print(f"--- scored: {text!r} {tokens}")
