"""The Transformers engine against one forward pass for each sequence, family by family."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from literal_models import FAMILIES, POSITIONS, Literal, prompt_of, save_family

from icl_select.errors import ModelError, ParameterError, PromptError
from icl_select.score import LanguageModel, load_scorer
from icl_select.score.causal_lm.writing import draw
from icl_select.score.encoding import encode_item
from icl_select.score.transformers_model import TransformersModel
from icl_select.types import Decoding, ScoreItem

pytest.importorskip("transformers", reason="needs icl-select[models]")

WORDS = ["topic", "claim", "True", "False", "sentence", "answer", "company", "album", "é", "漢", "positive", "great"]
DEMONSTRATIONS = "question: is the claim True or False?\nanswer: True\n\n\n" * 5


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def family(home: Path) -> Any:
    """Folder, engine and literal reference of a family, made once."""
    made: dict[str, Any] = {}

    def get(name: str) -> tuple[TransformersModel, Literal]:
        if name not in made:
            folder = save_family(home / name, name)
            limit = None if name == "bloom" else POSITIONS
            made[name] = TransformersModel(str(folder), device="cpu", threads=1), Literal(folder, max_length=limit)
        return made[name]

    return get


def words(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


def scenario(seed: int) -> tuple[list[str], list[list[str]]]:
    """Prompts that share demonstrations, that share them partly, that share nothing, that are equal, that are too
    long; choices of one token, of many, that begin each other, that join the prompt's last token."""
    rng = random.Random(seed)
    texts = [DEMONSTRATIONS + words(rng, 1, 30) + "\nanswer:" for _ in range(4)]
    texts += [DEMONSTRATIONS + "title: the album" * 4 + words(rng, 1, 9) for _ in range(3)]
    texts += [words(rng, 1, 60), words(rng, 1, 60), texts[0], "answer", words(rng, 300, 400)]
    sets = [
        ["\nTrue", "\nFalse"],
        ["\nnot equivalent", "\nequivalent", "\nnot"],
        [" " + words(rng, 1, 20), " " + words(rng, 1, 3)],
        ["s", "swer", "\nTrue, or False", "\nTrue"],
        ["\nTrue"],
    ]
    choices = [sets[k % len(sets)] for k in range(len(texts))]
    rng.shuffle(texts)
    return texts, choices


def expected(literal: Literal, texts: list[str], choices: list[list[str]]) -> list[list[float]]:
    return [literal.loglik(text, own) for text, own in zip(texts, choices, strict=True)]


def assert_close(found: Any, wanted: list[list[float]], tolerance: float = 1e-4) -> None:
    for row, line in enumerate(wanted):
        np.testing.assert_allclose(found.values[row, : len(line)], line, atol=tolerance, rtol=0)
        assert np.isnan(found.values[row, len(line) :]).all()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("batch_size", [1, 8])
def test_every_family_scores_as_one_sequence_at_a_time(family: Any, name: str, batch_size: int) -> None:
    engine, literal = family(name)
    texts, choices = scenario(batch_size)
    engine._loaded[1]._budget = batch_size * 1024
    before = engine.usage.cached_tokens
    found = engine.loglik([prompt_of(text) for text in texts], choices)
    assert_close(found, expected(literal, texts, choices))
    assert engine.usage.cached_tokens - before > 300  # the demonstrations were shared, not computed seven times
    items = [
        encode_item(literal.encode, text, own, max_length=literal.max_length)
        for text, own in zip(texts, choices, strict=True)
    ]
    assert found.prompt_tokens.tolist() == [len(item.context) for item in items]
    assert found.truncated.tolist() == [item.truncated for item in items]
    assert found.tokens.tolist() == [
        [len(choice) for choice in item.choices] + [0] * (4 - len(item.choices)) for item in items
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_writes_as_the_literal_greedy_loop(family: Any, name: str) -> None:
    engine, literal = family(name)
    texts, _ = scenario(3)
    decoding = Decoding(max_tokens=12, stop=("e", "\n"))
    made = engine.generate([prompt_of(text) for text in texts], decoding)
    for text, one in zip(texts, made, strict=True):
        written, ids, logprobs, finished = literal.write(text, decoding)
        assert (one.text, one.tokens, one.finished) == (written, len(ids), finished)
        np.testing.assert_allclose(one.logprobs, logprobs, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt_neo", "mistral"])
def test_without_sharing_the_numbers_are_the_same(home: Path, family: Any, name: str) -> None:
    engine, literal = family(name)
    whole = TransformersModel(str(home / name), device="cpu", threads=1, share=False)
    texts, choices = scenario(5)
    texts = list(dict.fromkeys(texts))
    choices = choices[: len(texts)]
    prompts = [prompt_of(text) for text in texts]
    assert_close(whole.loglik(prompts, choices), expected(literal, texts, choices))
    decoding = Decoding(max_tokens=6, stop=())
    for ours, theirs in zip(whole.generate(prompts, decoding), engine.generate(prompts, decoding), strict=True):
        assert (ours.text, ours.tokens) == (theirs.text, theirs.tokens)
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)
    assert whole.usage.cached_tokens == 0


TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


@settings(max_examples=60, deadline=None)
# What one prompt is scored on begins another prompt.
@example(start=DEMONSTRATIONS, ends=["", "0", "1", "00"], words=["00"])
@given(
    start=st.sampled_from(["", DEMONSTRATIONS, DEMONSTRATIONS[:60]]),
    ends=st.lists(TEXT, min_size=1, max_size=4),
    words=st.lists(TEXT.filter(bool), min_size=1, max_size=4),
)
def test_any_text_scores_as_one_sequence_at_a_time(family: Any, start: str, ends: list[str], words: list[str]) -> None:
    engine, literal = family("llama")
    texts = ["answer:" + start + end for end in ends]
    found = engine.loglik([prompt_of(text) for text in texts], [words] * len(texts))
    assert_close(found, expected(literal, texts, [words] * len(texts)))


def test_a_call_repeated_gives_the_same_bytes_whatever_came_before(home: Path, family: Any) -> None:
    engine, _ = family("llama")
    fresh = TransformersModel(str(home / "llama"), device="cpu", threads=1)
    texts, choices = scenario(7)
    prompts = [prompt_of(text) for text in texts]
    engine.loglik(prompts[::-1], choices[::-1])
    first, second = engine.loglik(prompts, choices), fresh.loglik(prompts, choices)
    assert first.values.tobytes() == second.values.tobytes()
    warm = Decoding(max_tokens=8, stop=(), temperature=0.9, seed=4)
    assert engine.generate(prompts, warm) == fresh.generate(prompts, warm)


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_drawing_follows_the_seed_of_each_prompt_alone(family: Any, temperature: float) -> None:
    engine, literal = family("qwen2")
    texts = [DEMONSTRATIONS + end for end in ("answer:", "title:", "content: é")] + ["answer:"]
    decoding = Decoding(max_tokens=10, stop=("\n",), temperature=temperature, seed=5)
    made = engine.generate([prompt_of(text) for text in texts], decoding)
    for text, one in zip(texts, made, strict=True):
        written, ids, logprobs, finished = literal.write(text, decoding)
        assert (one.text, one.tokens, one.finished) == (written, len(ids), finished)
        np.testing.assert_allclose(one.logprobs, logprobs, atol=1e-4)
    alone = engine.generate([prompt_of(texts[1])], decoding)[0]
    assert alone.text == made[1].text
    other = engine.generate([prompt_of(text) for text in texts], Decoding(10, (), temperature, seed=6))
    assert [one.text for one in other] != [one.text for one in made]


def test_drawing_gives_each_token_its_probability() -> None:
    weights = np.log(np.array([0.2, 0.5, 0.3]))
    rng = np.random.default_rng(0)
    counts = np.bincount([draw(weights, 1.0, rng) for _ in range(20_000)], minlength=3) / 20_000
    np.testing.assert_allclose(counts, [0.2, 0.5, 0.3], atol=0.015)
    squared = np.array([0.04, 0.25, 0.09])
    counts = np.bincount([draw(weights, 0.5, rng) for _ in range(20_000)], minlength=3) / 20_000
    np.testing.assert_allclose(counts, squared / squared.sum(), atol=0.015)


def test_a_stop_string_is_found_across_tokens_and_cut_off(family: Any) -> None:
    engine, _ = family("gpt2")
    free = engine.generate([prompt_of("the claim")], Decoding(max_tokens=16, stop=()))[0]
    assert free.tokens == 16
    assert not free.finished
    # Every place of the text, and every length of stop string: most begin or end inside a token.
    for start in range(1, len(free.text) - 3):
        stop = free.text[start : start + 3]
        made = engine.generate([prompt_of("the claim")], Decoding(max_tokens=16, stop=("no such", stop)))[0]
        assert made.text == free.text[: free.text.index(stop)]
        assert made.finished
        assert made.tokens == len(made.logprobs) <= 16
        assert made.logprobs == pytest.approx(free.logprobs[: made.tokens], abs=1e-5)


def test_the_end_of_text_ends_it(home: Path, family: Any) -> None:
    engine, literal = family("llama")
    free = engine.generate([prompt_of("hello")], Decoding(max_tokens=6, stop=()))[0]
    ids = literal.write("hello", Decoding(max_tokens=6, stop=()))[1]
    folder = save_family(home / "ends", "llama")
    settings_file = folder / "generation_config.json"
    settings_file.write_text(json.dumps({"eos_token_id": [ids[3], 1]}))
    ending = TransformersModel(str(folder), device="cpu", threads=1)
    made = ending.generate([prompt_of("hello")], Decoding(max_tokens=6, stop=()))[0]
    assert made.tokens == ids.index(ids[3]) + 1
    assert made.finished
    assert free.text.startswith(made.text)
    assert made.text == literal.text_of(literal.encode("hello"), ids[: made.tokens - 1])


def test_long_prompts_keep_their_ends(family: Any) -> None:
    engine, literal = family("gpt_neo")
    text = DEMONSTRATIONS * 4 + "answer:"
    made = engine.generate([prompt_of(text), prompt_of("short")], Decoding(max_tokens=20, stop=()))
    assert [one.truncated for one in made] == [True, False]
    assert made[0].prompt_tokens == POSITIONS - 20
    assert made[0].tokens == 20
    assert made[0].text == literal.write(text, Decoding(max_tokens=20, stop=()))[0]


def test_a_model_without_positions_reads_everything(family: Any) -> None:
    engine, literal = family("bloom")
    assert engine.max_length is None
    text = DEMONSTRATIONS * 4
    found = engine.loglik([prompt_of(text)], [["answer: True"]])
    assert not found.truncated[0]
    assert found.prompt_tokens[0] > POSITIONS
    assert_close(found, [literal.loglik(text, ["answer: True"])])


def test_usage_counts_what_was_not_computed_again(family: Any) -> None:
    engine, literal = family("qwen3")
    texts = [DEMONSTRATIONS * 2 + "title" + " claim" * count for count in range(4)]
    before = vars(engine.usage).copy()
    engine.loglik([prompt_of(text) for text in (*texts, texts[0])], [["\nTrue", "\nFalse"]] * 5)
    lengths = [len(literal.encode(text)) for text in texts]
    shared = len(literal.encode(DEMONSTRATIONS * 2 + "title"))
    usage = {key: value - before[key] for key, value in vars(engine.usage).items()}
    assert usage["requests"] == 5
    assert usage["prompt_tokens"] == sum(lengths) + lengths[0]
    # Three of four reuse the common beginning, but for the token after which choices are predicted in the shortest
    # one; the fifth is the first again.
    assert usage["cached_tokens"] == 3 * (shared - 1) + lengths[0]
    assert usage["seconds"] > 0
    engine.generate([prompt_of(text) for text in texts], Decoding(max_tokens=3, stop=()))
    assert engine.usage.generated_tokens - before["generated_tokens"] == 12


def test_logits_are_made_only_where_they_are_read(family: Any) -> None:
    engine, _ = family("llama")
    made: list[int] = []
    head = engine._loaded[0].get_output_embeddings()
    hook = head.register_forward_hook(lambda module, args, output: made.append(output.shape[0] * output.shape[1]))
    try:
        engine.loglik([prompt_of(DEMONSTRATIONS + "answer:")], [["\nTrue", "\nFalse"]])
    finally:
        hook.remove()
    # The prompt has over a hundred tokens; at most those of two choices are read.
    assert sum(made) < 10


def test_no_prompts_no_answers(family: Any) -> None:
    engine, _ = family("llama")
    assert engine.loglik([], []).values.shape == (0, 0)
    assert engine.generate([], Decoding()) == []


def test_what_is_known_before_weights_are_loaded(home: Path, family: Any) -> None:
    family("llama")
    engine = TransformersModel(str(home / "llama"), device="cpu")
    assert isinstance(engine, LanguageModel)
    assert engine.name.startswith("llama@")
    assert engine.max_length == POSITIONS
    assert engine.tokenizer_name == str(home / "llama")
    assert str(home) not in json.dumps(dict(engine.versions))
    assert "_loaded" not in vars(engine)
    folder = str(home / "llama")
    prints = {
        TransformersModel(folder, **options).fingerprint
        for options in ({}, {"dtype": "bfloat16"}, {"max_length": 64}, {"chat": True}, {"attention": "eager"})
    }
    assert len(prints) == 5
    assert TransformersModel(folder, batch_size=2, threads=1).fingerprint in prints


def test_a_chat_is_rendered_and_encoded_once(home: Path, family: Any) -> None:
    family("llama")
    chat = TransformersModel(str(home / "llama"), device="cpu", threads=1, chat=True)
    plain = TransformersModel(str(home / "llama"), device="cpu", threads=1)
    found = chat.loglik([prompt_of("is it?")], [[" yes", " no"]])
    same = plain.loglik([prompt_of("user: is it?\nassistant:")], [[" yes", " no"]])
    assert found.values.tobytes() == same.values.tobytes()


def test_through_the_registry(home: Path, family: Any) -> None:
    family("llama")
    scorer = load_scorer(f"transformers(model='{home / 'llama'}', device='cpu', threads=1, batch_size=2)")
    item = ScoreItem("a", (), ("True", "False"), prompt_of("the claim"))
    (answer,) = scorer.score([item])
    assert answer.output in {"True", "False"}
    assert set(answer.scores) == {"True", "False"}
    assert scorer.versions["engine"] == "transformers"


def test_bfloat16_stays_near(home: Path, family: Any) -> None:
    _, literal = family("llama")
    engine = TransformersModel(str(home / "llama"), device="cpu", threads=1, dtype="bfloat16")
    texts, choices = scenario(2)
    prompts = [prompt_of(text) for text in texts]
    assert_close(engine.loglik(prompts, choices), expected(literal, texts, choices), tolerance=5)


def test_an_adapter_is_merged_and_named_by_its_content(home: Path, family: Any) -> None:
    peft = pytest.importorskip("peft", reason="needs icl-select[lora]")
    import torch

    _, literal = family("llama")
    torch.manual_seed(0)
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(literal.model, settings)
    adapted.save_pretrained(home / "adapter")
    wanted = Literal(home / "llama")
    wanted.model = adapted
    engine = TransformersModel(str(home / "llama"), device="cpu", threads=1, lora=home / "adapter")
    texts, choices = scenario(4)
    prompts = [prompt_of(text) for text in texts]
    found = engine.loglik(prompts, choices)
    assert_close(found, expected(wanted, texts, choices))
    plain = TransformersModel(str(home / "llama"), device="cpu", threads=1)
    assert np.nanmax(np.abs(plain.loglik(prompts, choices).values - found.values)) > 0.1
    assert engine.fingerprint != plain.fingerprint
    literal.model = adapted.unload()


def test_recurrent_models_run_without_sharing_only(home: Path) -> None:
    import torch
    import transformers

    folder = home / "mamba"
    tokenizer = transformers.AutoTokenizer.from_pretrained(save_family(home / "llama-for-mamba", "llama"))
    torch.manual_seed(0)
    config = transformers.MambaConfig(
        vocab_size=len(tokenizer), hidden_size=16, state_size=4, num_hidden_layers=2, eos_token_id=1
    )
    transformers.MambaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    texts, choices = scenario(1)
    prompts = [prompt_of(text) for text in texts]
    with pytest.raises(ModelError, match=r"recurrent state.*share=False"):
        TransformersModel(str(folder), device="cpu").loglik(prompts, choices)
    engine = TransformersModel(str(folder), device="cpu", threads=1, share=False)
    literal = Literal(folder, max_length=None)
    assert_close(engine.loglik(prompts, choices), expected(literal, texts, choices))
    made = engine.generate([prompt_of("answer:"), prompt_of("the longer claim")], Decoding(max_tokens=4, stop=()))
    assert made[0].text == literal.write("answer:", Decoding(max_tokens=4, stop=()))[0]


def test_a_tokenizer_in_python_is_enough(home: Path, family: Any, tmp_path: Path) -> None:
    import shutil

    import transformers

    family("llama")
    folder = tmp_path / "slow"
    shutil.copytree(home / "llama", folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz:"
    vocabulary = {"<unk>": 0} | {
        token: place for place, token in enumerate([a + end for a in letters for end in ("@@", "")], 1)
    }
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version\n")
    slow = transformers.CTRLTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    assert not slow.is_fast
    slow.save_pretrained(folder)
    engine = TransformersModel(str(folder), device="cpu", threads=1)
    literal = Literal(folder)
    assert_close(
        engine.loglik([prompt_of("the claim")], [[" true", " false"]]),
        [literal.loglik("the claim", [" true", " false"])],
    )


# What is refused, and the way out that is named.


def test_parameters_are_checked(home: Path, family: Any) -> None:
    family("llama")
    folder = str(home / "llama")
    for options, way in (
        ({"dtype": "float31"}, "float32"),
        ({"batch_size": 0}, "at least 1"),
        ({"max_length": 1}, "at least 2"),
        ({"threads": 0}, "at least 1"),
    ):
        with pytest.raises(ParameterError, match=way):
            TransformersModel(folder, **options)
    with pytest.raises(ParameterError, match=f"{POSITIONS} positions"):
        _ = TransformersModel(folder, max_length=POSITIONS + 1).max_length
    with pytest.raises(ModelError, match="adapter_config"):
        TransformersModel(folder, lora=home)
    with pytest.raises(ModelError, match="no folder"):
        TransformersModel("/nowhere/at/all")


def test_requests_are_checked(family: Any) -> None:
    engine, _ = family("llama")
    hello = prompt_of("hello")
    with pytest.raises(PromptError, match="no choices"):
        engine.loglik([hello], [[]])
    with pytest.raises(PromptError, match="empty choice"):
        engine.loglik([hello], [[""]])
    with pytest.raises(PromptError, match="a choice takes"):
        engine.loglik([hello], [[" album" * POSITIONS]])
    with pytest.raises(PromptError, match="no token to continue"):
        engine.generate([prompt_of("")], Decoding())
    with pytest.raises(PromptError, match="surrogates"):
        engine.loglik([prompt_of("a\ud800b")], [["x"]])
    with pytest.raises(ModelError, match="no room"):
        engine.generate([hello], Decoding(max_tokens=POSITIONS))
    for decoding in (Decoding(max_tokens=0), Decoding(stop=("",)), Decoding(temperature=-1.0)):
        with pytest.raises(ParameterError):
            engine.generate([hello], decoding)


def test_numbers_that_are_none_are_refused(home: Path) -> None:
    import transformers

    folder = save_family(home / "huge", "llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.model.layers[0].mlp.down_proj.weight.data.mul_(1e6)
    model.save_pretrained(folder)
    engine = TransformersModel(str(folder), device="cpu", threads=1, dtype="float16", share=False)
    with pytest.raises(ModelError, match=r"NaN.*float32"):
        engine.loglik([prompt_of("hello")], [[" True"]])


def test_memory_that_runs_out_names_the_batch_size(home: Path, family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    family("llama")
    engine = TransformersModel(str(home / "llama"), device="cpu", threads=1)
    engine.load()

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(engine._loaded[0], "forward", fail)
    with pytest.raises(ModelError, match=r"out of memory.*batch_size"):
        engine.loglik([prompt_of("hello")], [[" True"]])


def test_a_chat_needs_a_template(home: Path, family: Any, tmp_path: Path) -> None:
    import shutil

    family("llama")
    folder = tmp_path / "plain"
    shutil.copytree(home / "llama", folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="chat template"):
        TransformersModel(str(folder), device="cpu", chat=True).loglik([prompt_of("hello")], [[" True"]])


def test_a_damaged_model_is_refused(home: Path, family: Any, tmp_path: Path) -> None:
    import shutil

    family("llama")
    folder = tmp_path / "damaged"
    shutil.copytree(home / "llama", folder)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot load the model damaged"):
        TransformersModel(str(folder), device="cpu").loglik([prompt_of("hello")], [[" True"]])
