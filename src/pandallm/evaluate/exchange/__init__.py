"""Both ways with lm-evaluation-harness: our tasks and results in its formats, its tasks on our scorer."""


def register() -> None:
    """Make `--model pandallm` known to an imported lm_eval. It reads no entry points, so somebody must call this."""
    import lm_eval.models  # noqa: F401 -- registers its own models first
    from lm_eval.api.registry import model_registry

    if "pandallm" not in model_registry:
        model_registry.register("pandallm", target="pandallm.evaluate.exchange.model:PandaLM")
