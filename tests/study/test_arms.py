"""Arms: what each factor changes, names that the recipe lacks, arms that are the same."""

from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.study.arms import Arm, make_arms
from tests.study.studies import study


def arms(folder: Path, factors: dict[str, Any], **more: Any) -> list[Arm]:
    return make_arms(study(folder, factors, **more))


def test_a_field_a_set_and_what_all_arms_share(tmp_path: Path) -> None:
    made = arms(
        tmp_path,
        {
            "lr": {"field": ["stages.pretrain.optimizer.lr", "stages.instruct.optimizer.lr"], "levels": [0.001, 0.01]},
            "length": {"levels": {"short": {}, "long": {"stages.pretrain.epochs": 2}}},
        },
        set={"evaluate.confidence": 0.9},
    )
    assert [a.name for a in made] == [
        "lr-0.001--length-short",
        "lr-0.001--length-long",
        "lr-0.01--length-short",
        "lr-0.01--length-long",
    ]
    last = made[-1].recipe
    assert (last.stages["pretrain"].optimizer.lr, last.stages["instruct"].optimizer.lr) == (0.01, 0.01)
    assert (last.stages["pretrain"].epochs, last.stages["pretrain"].steps) == (2, None)
    assert last.base.scratch is not None
    assert last.base.scratch.train.optimizer.lr == 0.002, "the recipe's anchor must not carry the change to the base"
    assert all(a.recipe.evaluate is not None and a.recipe.evaluate.confidence == 0.9 for a in made)
    run = made[-1].run(7, "small")
    assert (run.seed, run.name, run.runtime.runs) == (7, "lr-0.01--length-long", "runs/small/arms")


def shares(arm: Arm, corpus: str = "chinese") -> dict[str, float | None]:
    return {n: s.share for n, s in arm.recipe.corpora[corpus].sources.items()}


WEIGHTS = {"wiki2019zh": 4, "news2016zh": 2, "baike2018qa": 1, "webtext2019zh": 1, "translation2019zh": 2}


def test_a_share_keeps_the_others_proportions(tmp_path: Path) -> None:
    factor = {"kind": "share", "corpus": "chinese", "source": "english", "levels": [0, 0.5, 1], "weights": WEIGHTS}
    none, half, all_ = arms(tmp_path, {"english": {**factor, "max_epochs": 9}})
    # The whole corpus stays: its held-out documents are scored in every arm.
    assert "english" in shares(none)
    assert "english" not in shares(none, "chinese_part")
    assert none.recipe.stages["pretrain"].corpus == "chinese_part"
    assert shares(none, "chinese_part")["wiki2019zh"] == pytest.approx(0.4)
    assert half.recipe.stages["pretrain"].corpus == "chinese"
    assert shares(half) == pytest.approx({n: w / 20 for n, w in WEIGHTS.items()} | {"english": 0.5})
    assert shares(all_, "chinese_part") == {"english": 1.0}
    assert all(s.max_epochs == 9 for s in half.recipe.corpora["chinese"].sources.values())


def test_a_language_share_and_the_recipes_own_proportions(tmp_path: Path) -> None:
    own = {f"corpora.chinese.sources.{n}.share": w for n, w in (WEIGHTS | {"english": 1}).items()}
    factor = {"kind": "language_share", "corpus": "chinese", "levels": [0, 0.25]}
    english, quarter = arms(tmp_path, {"zh": factor}, set=own)
    assert shares(english, "chinese_part") == {"english": 1.0}
    assert shares(quarter) == pytest.approx({n: w / 40 for n, w in WEIGHTS.items()} | {"english": 0.75})


def test_replay_keeps_the_other_tokens_or_the_total(tmp_path: Path) -> None:
    factor = {"kind": "replay", "stage": "pretrain", "source": "english", "levels": [0, 0.25], "weights": WEIGHTS}
    _, rest = arms(tmp_path, {"replay": factor})
    assert (rest.recipe.stages["pretrain"].steps, shares(rest)["english"]) == (1200, 0.25)
    _, total = arms(tmp_path, {"replay": {**factor, "equal": "total"}})
    assert total.recipe.stages["pretrain"].steps == 900
    with pytest.raises(BadInput, match="in tokens or steps"):
        arms(tmp_path, {"replay": factor}, set={"stages.pretrain.epochs": 1})


def test_the_smaller_shortcuts(tmp_path: Path) -> None:
    few, many = arms(tmp_path, {"n": {"kind": "budget", "stage": "base", "of": "tokens", "levels": [1000, 2000]}})
    assert [a.recipe.base.scratch.train.tokens for a in (few, many) if a.recipe.base.scratch] == [1000, 2000]
    some, every = arms(
        tmp_path, {"n": {"kind": "quantity", "corpus": "coig", "source": "coig", "levels": {"100": 100, "all": None}}}
    )
    assert [a.recipe.corpora["coig"].sources["coig"].max_records for a in (some, every)] == [100, None]
    quality = {"kind": "quality", "corpus": "chinese", "levels": [None, 0.5]}
    with pytest.raises(BadInput, match="nothing gives source 'wiki2019zh'"):
        arms(tmp_path, {"q": quality})
    scored = {"corpora.chinese.clean": [{"kind": "normalize"}, {"kind": "score"}]}
    _, cut = arms(tmp_path, {"q": quality}, set=scored)
    assert {s.min_quality for s in cut.recipe.corpora["chinese"].sources.values()} == {0.5}
    _, noisy = arms(tmp_path, {"noise": {"kind": "noise", "levels": [0, 0.3]}})
    assert noisy.recipe.world is not None
    assert noisy.recipe.world.wrong_answers == 0.3
    _, large = arms(tmp_path, {"v": {"kind": "vocabulary", "levels": [800, 1280]}})
    assert large.recipe.base.scratch is not None
    assert large.recipe.base.scratch.tokenizer.size == 1280
    none, _ = arms(tmp_path, {"d": {"kind": "dedup", "corpus": "chinese", "levels": ["none", "minhash"]}})
    assert none.recipe.corpora["chinese"].dedup.kind == "none"
    left = arms(tmp_path, {"without": {"kind": "leave_out", "corpus": "chinese"}})
    assert [a.levels["without"] for a in left] == ["all", *WEIGHTS, "english"]
    assert left[2].recipe.stages["pretrain"].corpus == "chinese_part"
    assert set(left[2].recipe.corpora["chinese_part"].sources) == {*WEIGHTS, "english"} - {"news2016zh"}


def test_a_factor_reaches_the_corpus_that_an_earlier_one_cut(tmp_path: Path) -> None:
    factors = {
        "without": {"kind": "leave_out", "corpus": "chinese", "levels": ["news2016zh"]},
        "dedup": {"kind": "dedup", "corpus": "chinese", "levels": ["exact", "none"]},
        "again": {"kind": "leave_out", "corpus": "chinese", "levels": ["english"]},
    }
    last = arms(tmp_path, factors)[-1].recipe
    part = last.corpora[last.stages["pretrain"].corpus]
    assert part.dedup.kind == "none"
    assert set(part.sources) == {*WEIGHTS} - {"news2016zh"}


STAGING = {
    "kind": "staging",
    "first": "pretrain",
    "second": "instruct",
    "tokens": [8000, 2000],
    "levels": {"two": "two_stage", "one": "one_stage", "x4": {"upsample": 4}, "decay": "decay"},
    "weights": WEIGHTS | {"english": 1},
    "decay_share": 0.25,
}


def test_staging_matches_exposures_and_tokens(tmp_path: Path) -> None:
    two, one, x4, decay = (a.recipe for a in arms(tmp_path, {"staging": STAGING}))
    assert [two.stages[n].tokens for n in ("pretrain", "instruct")] == [8000, 2000]
    for recipe, tokens, exposures in ((one, 10_000, 2000), (x4, 10_000, 8000)):
        assert list(recipe.stages) == ["instruct"]
        stage = recipe.stages["instruct"]
        assert (stage.tokens, stage.from_) == (tokens, "base")
        assert stage.optimizer == two.stages["pretrain"].optimizer
        mixed = recipe.corpora[stage.corpus].sources
        assert (mixed["coig"].share or 0) * tokens == pytest.approx(exposures)
        assert sum(s.share or 0 for s in mixed.values()) == pytest.approx(1, abs=1e-5)
        assert mixed["wiki2019zh"].held_out == two.corpora["chinese"].held_out
        assert mixed["coig"].held_out == two.corpora["coig"].held_out
        assert recipe.evaluate is not None
        assert recipe.evaluate.models == ("base", "instruct")
    assert [decay.stages[n].tokens for n in ("pretrain", "instruct")] == [7500, 2500]
    assert decay.stages["pretrain"].optimizer.schedule == "constant"
    last = decay.stages["instruct"]
    assert (last.optimizer.schedule, last.optimizer.warmup, last.from_) == ("linear", 0, "pretrain")
    assert (decay.corpora[last.corpus].sources["coig"].share or 0) * 2500 == pytest.approx(2000)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"levels": {"two": "two_stage", "x9": {"upsample": 9}}}, "180% of all tokens; at most 5 fits"),
        ({"levels": {"two": "two_stage", "decay": "decay"}, "decay_share": 0.2}, "raise decay_share"),
        ({"first": "pretrian"}, "no stage 'pretrian'. Did you mean 'pretrain'?"),
        ({"first": "instruct"}, "starts from 'pretrain', not from 'instruct'"),
        ({"weights": {"wiki2019zh": 1}}, "source 'news2016zh' is missing"),
    ],
)
def test_staging_that_cannot_be(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as e:
        arms(tmp_path, {"staging": STAGING | change})
    assert sentence in str(e.value)


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("stages.pretain.steps", "'pretain' is no field of stages. Did you mean 'pretrain'?"),
        ("stages.pretrain.stepss", "'stepss' is no field of stages.pretrain. Did you mean 'steps'?"),
        ("stages.pretrain.optimizer.lrr", "'lrr' is no field of stages.pretrain.optimizer. Did you mean 'lr'?"),
        ("stages.pretrain.steps.x", "stages.pretrain.steps holds a value, not fields"),
        ("corpora.chinese.dedup.thresold", "Did you mean 'threshold'?"),
        ("corpora.chinese.clean.7.form", "is a list of"),
        ("seed", "seed is given by the study's own fields"),
        ("runtime.threads", "runtime does not change the result"),
        ("bse.model", "Did you mean 'base'?"),
    ],
)
def test_a_factor_that_names_no_field(field: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as e:
        arms(tmp_path, {"x": {"field": field, "levels": [1, 2]}})
    assert sentence in str(e.value)
    assert f"{tmp_path / 'study.yaml'}:" in str(e.value)
    assert "factors.x" in str(e.value)


def test_null_takes_a_stage_out_and_the_names_are_checked_again(tmp_path: Path) -> None:
    factor = {"x": {"levels": {"all": {}, "none": {"stages.instruct": None}}}}
    with pytest.raises(BadInput, match=r"evaluate\.models\.2: unknown model 'instruct'"):
        arms(tmp_path, factor)
    without = {"stages.instruct": None, "evaluate.models": ["base", "pretrain"], "release": None}
    _, short = arms(tmp_path, {"x": {"levels": {"all": {}, "none": without}}})
    assert list(short.recipe.stages) == ["pretrain"]


@pytest.mark.parametrize(
    ("factors", "more", "sentence"),
    [
        ({"x": {"field": "stages.pretrain.steps", "levels": [900, "900"]}}, {}, "level '900' is given twice"),
        (
            {"x": {"field": "stages.pretrain.steps", "levels": {"a": 900, "b": "900"}}},
            {},
            "'x-a' and 'x-b' are the same recipe",
        ),
        (
            {"x": {"field": "stages.pretrain.steps", "levels": [1, 2]}},
            {"budget": {"pretrain": {"tokens": 5}}},
            "stages.pretrain.steps is fixed by budget.pretrain",
        ),
        (
            {"x": {"field": "stages.pretrain.steps", "levels": [1, 2]}},
            {"budget": {"pretrian": {"tokens": 5}}},
            "Did you mean 'pretrain'?",
        ),
        ({"x": {"field": "stages.pretrain.steps", "levels": [1, "two"]}}, {}, "valid integer"),
        (
            {"x": {"kind": "share", "corpus": "chines", "source": "english", "levels": [0, 1]}},
            {},
            "Did you mean 'chinese'?",
        ),
        ({"x": {"kind": "quantity", "corpus": "coig", "source": "cog", "levels": [1, 2]}}, {}, "Did you mean 'coig'?"),
        (
            {
                "x": {"field": "stages.pretrain.steps", "levels": [1, 2, 3]},
                "y": {"field": "stages.pretrain.batch_sequences", "levels": [1, 2]},
            },
            {"grid": "one_at_a_time", "contrasts": {"c": {"a": {"x": 2, "y": "1"}, "b": {"x": "2", "y": "2"}}}},
            "contrasts.c: no two arms of this grid have these levels",
        ),
    ],
)
def test_arms_that_cannot_be(factors: dict[str, Any], more: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as e:
        arms(tmp_path, factors, **more)
    assert sentence in str(e.value)


def test_the_fixed_budget_is_in_every_arm(tmp_path: Path) -> None:
    lr = {"x": {"field": "stages.pretrain.optimizer.lr", "levels": [0.1, 0.2]}}
    made = arms(tmp_path, lr, budget={"pretrain": {"tokens": 5000}, "base": {"steps": 7}})
    assert {a.recipe.stages["pretrain"].tokens for a in made} == {5000}
    assert {a.recipe.base.scratch.train.steps for a in made if a.recipe.base.scratch} == {7}


def test_equal_flops_are_fewer_tokens_for_a_larger_model(tmp_path: Path) -> None:
    widths = {"width": {"field": "base.scratch.architecture.intermediate_size", "levels": [512, 1024]}}
    made = arms(tmp_path, widths, budget={"pretrain": {"flops": 1e12}})
    small, large = (a.recipe.stages["pretrain"].tokens or 0 for a in made)
    # Two layers' three matrices 128 x 512 more, of six FLOPs a weight and token.
    assert 1e12 / large - 1e12 / small == pytest.approx(6 * 2 * 3 * 128 * 512, rel=0.001)
    with pytest.raises(BadInput, match=r"fixed by budget\.pretrain"):
        arms(
            tmp_path, {"x": {"field": "stages.pretrain.steps", "levels": [1, 2]}}, budget={"pretrain": {"flops": 1e12}}
        )
    with pytest.raises(BadInput, match="do not train on a single token"):
        arms(tmp_path, widths, budget={"pretrain": {"flops": 10}})
