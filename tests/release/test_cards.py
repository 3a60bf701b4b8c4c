"""The card says what the stored results say, and no more."""

from pandallm.release.cards import model_card

MANIFEST = {
    "name": "kite",
    "seed": 7,
    "pandallm": "0.1.0",
    "seconds": 61.2,
    "stages": [
        {"name": "clean", "facts": {"kept": 3}},
        {"name": "pretrain", "facts": {"steps": 40, "trained_tokens": 81920, "final_loss": 2.34567}},
    ],
}
SCORES = {
    "confidence": 0.95,
    "table": [
        {"model": "pretrain", "task": "sums", "title": "Sums", "prompt": "plain", "method": "letter", "n": 80,
         "accuracy": 0.3125, "low": 0.22, "high": 0.42, "chance": 0.25, "near_chance": True},
    ],
    "differences": [{"a": "base", "b": "pretrain", "what": "sums", "difference": 0.05, "low": -0.02, "high": 0.12, "p": 0.19}],
    "bits_per_byte": [
        {"model": "pretrain", "corpus": "c", "source": "s", "language": "zh", "documents": 9, "bits_per_byte": 1.5, "low": 1.4, "high": 1.6}
    ],
}  # fmt: skip


def test_figures_of_the_run_are_there() -> None:
    card = model_card(MANIFEST, SCORES, {"base": {"folder": "small"}})
    assert card.startswith("# kite\n")
    assert "| pretrain |  |  | 40 | 81,920 |  |  |  | 2.346 | 0 s |" in card
    assert "| pretrain | Sums | plain | letter | 80 | 31.2 (22.0 to 42.0) | 25.0 |  | near chance |" in card
    assert "| base | pretrain | sums | +5.0 (-2.0 to +12.0) | 0.19 |" in card
    assert "| pretrain | c | s | zh | 9 | 1.500 (1.400 to 1.600) |" in card
    assert "95.0 % confidence" in card
    assert "folder: small" in card
    assert "| clean |" not in card


def test_nothing_measured_is_said_plainly() -> None:
    card = model_card({"name": "kite"}, {}, {})
    assert "No benchmark was run." in card
    assert "## Training" not in card
    assert "version not stored" in card


def test_names_cannot_break_out_of_the_card() -> None:
    card = model_card({"name": "x\n<script>a|b</script> & [l](u)"}, {}, {})
    first = card.splitlines()[0]
    assert first == r"# x &lt;script\>a\|b&lt;/script\> &amp; \[l\](u)"


def test_a_single_document_has_no_interval() -> None:
    row = {
        "model": "base",
        "corpus": "c",
        "source": "s",
        "language": "zh",
        "documents": 1,
        "bits_per_byte": 2.5,
        "low": None,
        "high": None,
    }
    assert "| 2.500 (no interval) |" in model_card({"name": "x"}, {"bits_per_byte": [row]}, {})
