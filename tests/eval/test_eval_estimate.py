"""What a campaign will cost: counts by hand, tokens against prompts that were built, memory against the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icl_select.embedding import load_encoder
from icl_select.errors import ModelError, ParameterError, StoreError
from icl_select.eval.config import Campaign
from icl_select.eval.estimate import DEVICE_FLOPS, UTILISATION, Estimate, estimate, measured_speed, read_speed
from icl_select.eval.footprint import measure_model, skeleton
from icl_select.eval.plan import TaskPlan, plan_task
from icl_select.eval.prompting import prompting_of
from icl_select.eval.runner import missing_cells
from icl_select.eval.sampled import count_task
from icl_select.eval.store import RunFolder
from icl_select.eval.tasks import load_task
from icl_select.methods import select
from icl_select.prompt import load_tokenizer
from icl_select.retrieve import Retriever
from icl_select.score import ModelScorer, load_scorer
from icl_select.score.http_model import HttpModel
from icl_select.score.protocol import Usage
from icl_select.score.tiny import make_tiny_model
from icl_select.types import Demonstration

Make = Callable[..., Campaign]


@dataclass
class Unasked:
    """A language model that may be asked about itself, and nothing else."""

    tokenizer_name: str | None
    max_length: int | None = 2048
    chat: bool = False
    name: str = "unasked@0"
    fingerprint: str = "0"
    versions: Mapping[str, str] = field(default_factory=lambda: {"engine": "none", "dtype": "float32"})
    usage: Usage = field(default_factory=Usage)

    def loglik(self, *_: Any) -> Any:
        raise AssertionError("the model was asked")

    generate = loglik


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def scorer(tiny: Path) -> ModelScorer:
    return ModelScorer(Unasked(str(tiny)))


def plans_of(campaign: Campaign, scorer: Any) -> list[TaskPlan]:
    encoder = load_encoder(campaign.encoder)
    return [plan_task(campaign, load_task(entry, campaign.data_dir), encoder, scorer) for entry in campaign.tasks]


def guess(campaign: Campaign, scorer: Any, **options: Any) -> Estimate:
    return estimate(campaign, plans_of(campaign, scorer), scorer, **options)


def true_tokens(campaign: Campaign, plan: TaskPlan, scorer: ModelScorer, tokenizer_name: str) -> tuple[int, int]:
    """Tokens of every prompt of the campaign, each selected, retrieved and written for real; and their number."""
    encoder, tokenizer, total, count = load_encoder(campaign.encoder), load_tokenizer(tokenizer_name), 0, 0
    x, q = encoder.encode(plan.data.pool.texts).vectors, encoder.encode(plan.data.test.texts).vectors
    prompting = prompting_of(campaign, plan.data.task, scorer)
    for job in plan.jobs:
        draw = plan.draws[job.draw]
        for budget in job.budgets:
            rows = draw.pool[select(job.method, x[draw.pool], budget, seed=job.seed).indices]
            examples = [plan.data.pool[int(i)] for i in rows]
            retriever = Retriever(x[rows], [e.id for e in examples], [str(e.label) for e in examples])
            for found, i in zip(retriever.retrieve(q[draw.test], campaign.retrieval.k), draw.test, strict=True):
                shown = [
                    Demonstration(examples[r].id, str(examples[r].label), float(s), examples[r].fields)
                    for r, s in zip(found.rows, found.similarities, strict=True)
                ]
                total += tokenizer.count(prompting.prompt(shown, plan.data.test[int(i)]).text)
                count += 1
    return total, count


def test_tokens_are_near_those_of_the_prompts_that_are_built(campaign: Make, tiny: Path, scorer: ModelScorer) -> None:
    small = campaign(tasks=["support"], budgets=[4, 20], draws=2, test_size=40, retrieval={"k": 5})
    plans = plans_of(small, scorer)
    want, prompts = true_tokens(small, plans[0], scorer, str(tiny))
    found = estimate(small, plans, scorer).tasks[0]
    assert found.prompts == prompts == 2 * (2 + 1) * 2 * 40
    assert abs(found.prompt_tokens - want) < 0.15 * want
    assert 0 < found.standard_error < 0.1 * want


@pytest.mark.parametrize("order", ["nearest_first", "shuffled", "shared_first"])
def test_every_order_of_demonstrations_can_be_estimated(campaign: Make, scorer: ModelScorer, order: str) -> None:
    """The order changes next to nothing of how long prompts are."""
    plain = guess(campaign(tasks=["support"]), scorer).tasks[0]
    found = guess(campaign(tasks=["support"], retrieval={"order": order}), scorer).tasks[0]
    assert found.prompts == plain.prompts
    assert found.prompt_tokens == pytest.approx(plain.prompt_tokens, rel=0.02)


def test_a_query_alone_is_the_lower_bound(campaign: Make, tiny: Path, scorer: ModelScorer) -> None:
    small = campaign(tasks=["support"], budgets=[4], draws=2, test_size=40)
    plan = plans_of(small, scorer)[0]
    tokenizer, prompting = load_tokenizer(str(tiny)), prompting_of(small, plan.data.task, scorer)
    alone = [
        tokenizer.count(prompting.prompt((), plan.data.test[int(i)]).text) for draw in plan.draws for i in draw.test
    ]
    found = estimate(small, [plan], scorer).tasks[0]
    assert found.own_tokens == pytest.approx(3 * sum(alone), rel=0.15)
    assert found.own_tokens < found.prompt_tokens / 2


def test_counts_by_hand(campaign: Make, scorer: ModelScorer) -> None:
    """3 draws x (2 random + 1 max_herding + 1 full vote_k) x 2 budgets, 12 test items, and 30 pool rows asked about."""
    full = "vote_k(k=10, stage='full')"
    found = guess(campaign(methods=["random", "max_herding", full]), scorer).tasks[0]
    assert (found.cells, found.prompts) == (3 * 4 * 2, 3 * 4 * 2 * 12)
    assert (found.feedback_prompts, found.extra_prompts) == (3 * 2 * 30, 0)
    assert found.all_prompts == 288 + 180


def test_label_words_are_counted_with_what_stands_before_them(campaign: Make, tiny: Path, scorer: ModelScorer) -> None:
    """The words of the desk, each after its line break, as ids that a prompt does not have."""
    tokenizer = load_tokenizer(str(tiny))
    per_prompt = sum(tokenizer.count(f"\n{word}") - tokenizer.count("") for word in ("billing", "delivery", "login"))
    found = guess(campaign(), scorer).tasks[0]
    assert found.scored_tokens == pytest.approx(per_prompt * found.prompts, rel=0.02)
    assert found.written_tokens == found.most_written_tokens == 0


def test_calibration_asks_more_prompts(campaign: Make, tiny: Path) -> None:
    plain = guess(campaign(tasks=["support"]), ModelScorer(Unasked(str(tiny)))).tasks[0]
    calibrated = guess(campaign(tasks=["support"]), ModelScorer(Unasked(str(tiny)), rule="contextual")).tasks[0]
    assert calibrated.extra_prompts == 3 * calibrated.prompts
    assert 2 * plain.prompt_tokens < calibrated.prompt_tokens < 4 * plain.prompt_tokens
    assert calibrated.scored_tokens == 4 * plain.scored_tokens


def test_generations_lie_between_the_references_and_the_limit(campaign: Make, tmp_path: Path, tiny: Path) -> None:
    own = {
        "name": "desk",
        "pool": str(campaign().tasks[0].pool),  # type: ignore[union-attr]
        "test": str(campaign().tasks[0].test),  # type: ignore[union-attr]
        "generation": True,
        "metric": "exact_match",
    }
    found = guess(campaign(tasks=[own]), ModelScorer(Unasked(str(tiny)), max_tokens=40)).tasks[0]
    assert found.scored_tokens == 0
    assert 0 < found.written_tokens < found.most_written_tokens
    assert found.most_written_tokens % found.prompts == 0


def test_only_missing_cells_are_counted(campaign: Make, scorer: ModelScorer) -> None:
    plans = plans_of(campaign(), scorer)
    missing = missing_cells(RunFolder(campaign().folder), plans)
    assert estimate(campaign(), plans, scorer, missing=missing) == estimate(campaign(), plans, scorer)
    half = {"desk": [(job, budgets) for job, budgets in missing["desk"] if job.draw == 0]}
    found = estimate(campaign(), plans, scorer, missing=half).tasks[0]
    assert (found.cells, found.prompts) == (6, 6 * 12)
    assert estimate(campaign(), plans, scorer, missing={}).tokens.high == 0


def test_the_same_campaign_gives_the_same_estimate(campaign: Make, scorer: ModelScorer) -> None:
    first, second = guess(campaign(), scorer), guess(campaign(), scorer)
    assert first == second
    assert first.lines() == second.lines()
    assert guess(campaign(seed=1), scorer).tasks[0].prompt_tokens != first.tasks[0].prompt_tokens


def test_json_and_lines(campaign: Make, tmp_path: Path, scorer: ModelScorer) -> None:
    found = guess(campaign(), scorer)
    shown = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert set(shown) == {
        "estimate", "tasks", "total", "model", "tokenizer", "tokens", "memory", "seconds", "cost", "assumptions",
    }  # fmt: skip
    assert shown["estimate"] is True
    assert shown["total"]["prompts"] == sum(task["prompts"] for task in shown["tasks"]) == 18 * 12
    assert 0 < shown["tokens"]["low"] < shown["tokens"]["high"]
    assert shown["seconds"]["high"] == pytest.approx(
        shown["tokens"]["high"] * 2 * shown["memory"]["parameters"] / (DEVICE_FLOPS * UTILISATION)
    )
    text = "\n".join(found.lines())
    assert text.startswith("estimate for unasked@0")
    assert "desk: 18 cells, 216 prompts" in text
    assert "no measurement of this machine" in text
    assert str(tmp_path) not in text + json.dumps(shown)


def test_a_measured_speed_replaces_the_assumed_one(campaign: Make, tmp_path: Path, scorer: ModelScorer) -> None:
    usage = {"prompt_tokens": 5000, "cached_tokens": 2000, "generated_tokens": 1000, "seconds": 4.0, "requests": 9}
    (tmp_path / "run.json").write_text(json.dumps({"usage": usage}))
    assert measured_speed(tmp_path) == measured_speed(tmp_path / "run.json") == 1000
    assert (read_speed(str(tmp_path)), read_speed("2.5e3")) == (1000, 2500)
    for wrong in ("0", "-1", "inf", "nan"):
        with pytest.raises(ParameterError, match="no speed"):
            read_speed(wrong)
    found = guess(campaign(), scorer, tokens_per_second=1000.0)
    assert found.seconds is not None
    assert found.seconds.low == found.tokens.low / 1000
    assert any("1,000 computed tokens a second, as measured" in line for line in found.assumptions)
    for none in ({"seconds": 0.0}, {"cached_tokens": 6000}):
        (tmp_path / "run.json").write_text(json.dumps({"usage": usage | none}))
        with pytest.raises(StoreError, match="no measured speed"):
            measured_speed(tmp_path)
    with pytest.raises(StoreError, match="no measured speed"):
        measured_speed(tmp_path / "nowhere")


def test_prices_give_a_cost(campaign: Make, tiny: Path) -> None:
    """Through token ids every prompt is one request that reads it once: words that begin alike need no second one."""
    options = {"tokenizer": str(tiny), "mode": "token_ids", "url": "http://127.0.0.1:9/v1"}
    model = HttpModel("served", price_in=2.0, price_out=8.0, **options)
    found = guess(campaign(), ModelScorer(model))
    task = found.tasks[0]
    assert found.cost == task.cost
    assert found.cost is not None
    assert found.cost >= 2.0 * task.prompt_tokens / 1e6
    double = guess(campaign(), ModelScorer(HttpModel("served", price_in=4.0, price_out=16.0, **options)))
    assert double.cost == pytest.approx(2 * found.cost)
    assert (found.memory, found.seconds) == (None, None)
    assert any("the server" in line for line in found.assumptions)
    assert "at most" in "\n".join(found.lines())
    assert guess(campaign(), ModelScorer(HttpModel("served", **options))).cost is None


def test_what_is_not_known_is_said(campaign: Make) -> None:
    unknown = ModelScorer(Unasked(None, max_length=None))
    small = campaign(prompt={"tokenizer": "utf8"})
    found = guess(small, unknown)
    assert (found.memory, found.seconds, found.cost) == (None, None, None)
    assert found.tokenizer == "utf8"
    assert sum("not known" in line for line in found.assumptions) == 3


def test_a_scorer_without_a_model_has_cells_only(campaign: Make) -> None:
    found = guess(campaign(), load_scorer("knn"))
    assert (found.tasks[0].cells, found.tasks[0].all_prompts, found.model) == (18, 0, None)
    assert found.lines() == ["estimate: 18 cells; the scorer knn asks no model."]


def test_more_samples_come_nearer(campaign: Make, tiny: Path, scorer: ModelScorer) -> None:
    small = campaign(tasks=["support"], budgets=[4], draws=2)
    plan = plans_of(small, scorer)[0]
    jobs = [(job, frozenset(job.budgets)) for job in plan.jobs]
    few, many = (
        count_task(small, plan, jobs, scorer, load_tokenizer(str(tiny)), sample=n).standard_error for n in (8, 128)
    )
    assert many < 0.6 * few


# Memory -----------------------------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_loaded_model(tiny: Path) -> None:
    import transformers

    loaded = transformers.AutoModelForCausalLM.from_pretrained(tiny)
    found = measure_model(str(tiny), sequences=3)
    assert found.parameters == sum(weight.numel() for weight in loaded.parameters())
    assert (found.dtype, found.weight_bytes) == ("float32", 4 * found.parameters)
    # 2 layers x 4 heads x 32 numbers, keys and values, 4 bytes
    assert found.kv_bytes_per_token == 2 * 2 * 4 * 32 * 4
    assert found.kv_bytes == found.kv_bytes_per_token * 4096 * 3
    assert found.total_bytes == found.weight_bytes + found.kv_bytes
    half = measure_model(str(tiny), dtype="float16", max_length=100)
    assert (half.weight_bytes, half.max_length) == (2 * found.parameters, 100)


def test_keys_and_values_are_those_of_a_real_cache(tiny: Path) -> None:
    import torch
    import transformers

    loaded = transformers.AutoModelForCausalLM.from_pretrained(tiny)
    with torch.inference_mode():
        cache = loaded(torch.arange(10, 17)[None], use_cache=True).past_key_values
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kept == 7 * measure_model(str(tiny)).kv_bytes_per_token


def test_no_weights_take_memory() -> None:
    """GPT-J has 24 GB of weights in float32; its shapes take next to nothing."""
    import transformers

    model = skeleton(transformers.GPTJConfig(tie_word_embeddings=False))
    weights = list(model.parameters())
    assert sum(weight.numel() for weight in weights) == 6_050_882_784
    assert all(weight.is_meta for weight in weights)
    assert all(buffer.is_meta for buffer in model.buffers())


def test_quantised_and_unknown_dtypes_are_refused(tiny: Path, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(ModelError, match="in 'int3' is not known"):
        measure_model(str(tiny), dtype="int3")
    copy = shutil.copytree(tiny, tmp_path / "quantised")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(ModelError, match="is quantised"):
        measure_model(str(copy))


def test_a_random_sample_does_not_touch_the_global_generator(campaign: Make, scorer: ModelScorer) -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    guess(campaign(), scorer)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
