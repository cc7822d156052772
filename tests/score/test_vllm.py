"""The vLLM engine on the tiny model: against torch token by token, against a literal greedy loop, and its promises."""

from __future__ import annotations

import importlib
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icl_select.errors import ModelError, ParameterError, PromptError
from icl_select.score import LanguageModel, load_scorer
from icl_select.score.encoding import EncodedItem
from icl_select.score.tiny import make_tiny_model
from icl_select.score.vllm_choices import prefill_is_cheaper
from icl_select.score.vllm_model import VllmModel
from icl_select.types import Decoding, Prompt, ScoreItem

pytest.importorskip("vllm", reason="needs icl-select[vllm]")
pytestmark = pytest.mark.vllm

LENGTH = 512
PLAIN = ("very", "negative", "topic", "SELECT", "answer:", "\n", "  ")
# Accents, also as a character of their own, Chinese, an emoji, Hebrew.
WORDS = (*PLAIN, "caf\u00e9", "a\u0301", "\u4f60\u597d", "\U0001f600", "\u05e9\u05dc\u05d5\u05dd")


def prompt(text: str, role: str = "user") -> Prompt:
    return Prompt("q", text, ({"role": role, "content": text},), (), (), 0)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", max_length=LENGTH)


@pytest.fixture(scope="session")
def model(folder: Path) -> Iterator[VllmModel]:
    # A campaign that has selected examples has loaded it, and vLLM must start beside it.
    importlib.import_module("numba")
    made = VllmModel(str(folder), kv_cache_gib=0.25)
    yield made
    made.close()


class Reference:
    """Transformers in float32, one sequence at a time, nothing cached."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch: Any = torch
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids

    def logprobs(self, ids: Sequence[int]) -> Any:
        """Log-probabilities of what follows each token, shape (tokens, vocabulary)."""
        with self.torch.inference_mode():
            return self.torch.log_softmax(self.model(self.torch.tensor([list(ids)])).logits[0].float(), dim=-1)

    def loglik(self, text: str, choices: Sequence[str], length: int = LENGTH) -> tuple[list[float], list[int], int]:
        """By the definition: what the encodings have in common is read, the rest of each is scored."""
        alone, joint = self.encode(text), [self.encode(text + choice) for choice in choices]
        border = 0
        while all(border < len(ids) - 1 and ids[: border + 1] == alone[: border + 1] for ids in joint):
            if border == len(alone):
                break
            border += 1
        tails = [ids[border:] for ids in joint]
        context = alone[:border][-(length - max(map(len, tails))) :]
        values = []
        for tail in tails:
            rows = self.logprobs([*context, *tail])
            values.append(sum(float(rows[len(context) - 1 + t, token]) for t, token in enumerate(tail)))
        return values, [len(tail) for tail in tails], len(context)

    def greedy(self, ids: Sequence[int], steps: int, stop: Sequence[str]) -> tuple[str, list[float], bool]:
        written: list[int] = []
        values: list[float] = []
        for _ in range(steps):
            row = self.logprobs([*ids, *written])[-1]
            written.append(int(row.argmax()))
            values.append(float(row.max()))
            text = self.tokenizer.decode(written, skip_special_tokens=True)
            ends = [text.find(mark) for mark in stop if mark in text]
            if ends or written[-1] == self.tokenizer.eos_token_id:
                return text[: min(ends, default=len(text))], values, True
        return self.tokenizer.decode(written, skip_special_tokens=True), values, False


@pytest.fixture(scope="session")
def reference(folder: Path) -> Reference:
    return Reference(folder)


def texts(rng: random.Random, count: int, longest: int) -> list[str]:
    def one() -> str:
        size = int(rng.triangular(1, longest, 1))
        return "".join(rng.choice(WORDS) + rng.choice(("", " ", ".")) for _ in range(size))

    return [one() for _ in range(count)]


def test_loglik_equals_torch_over_random_prompts(model: VllmModel, reference: Reference) -> None:
    """Unicode, borders inside of tokens, one to six choices of one to many tokens, lengths beyond the limit."""
    rng = random.Random(5)
    asked = texts(rng, 30, 60) + texts(rng, 6, 400)
    choices = [[f"{rng.choice(chr(10) + ' ')}{word}" for word in texts(rng, rng.randint(1, 6), 8)] for _ in asked]
    # A border inside of a token: "sent" + "ences" is one token of the tiny model, and so are several words with blanks.
    asked += ["How do you feel about the sent", "Are the", "answer", "\u00e9", "x"]
    choices += [["ences", "ence", "s"], [" following", " foll", " "], [":", ": ", ":\n"], ["\u0301", "a"], ["y", "yy"]]
    got = model.loglik([prompt(text) for text in asked], choices)
    assert got.values.shape == (len(asked), max(map(len, choices)))
    assert sum(got.truncated) >= 2
    assert 0 < sum(got.truncated) < len(asked) / 2
    for row, (text, words) in enumerate(zip(asked, choices, strict=True)):
        values, tokens, read = reference.loglik(text, words)
        assert got.values[row, : len(words)] == pytest.approx(values, abs=1e-4), (text, words)
        assert got.tokens[row, : len(words)].tolist() == tokens
        assert got.prompt_tokens[row] == read
        assert np.isnan(got.values[row, len(words) :]).all()
        assert int(np.argmax(values)) == int(np.nanargmax(got.values[row]))


def test_endings_are_read_whole_where_that_is_cheaper(model: VllmModel, reference: Reference) -> None:
    """20 and more tokens an ending: the walk would take a request a token."""
    rng = random.Random(1)
    text = "The topic is " + " ".join(texts(rng, 1, 60))
    endings = [" " + "".join(rng.choices("abcdefgh", k=30)) for _ in range(4)]
    before = model.usage.requests
    got = model.loglik([prompt(text), prompt(text[:-3])], [endings, endings])
    assert model.usage.requests - before == 8
    for row, asked in enumerate((text, text[:-3])):
        assert got.values[row] == pytest.approx(reference.loglik(asked, endings)[0], abs=1e-4)


def test_the_limit_to_the_token(model: VllmModel, reference: Reference) -> None:
    """Items of exactly the limit, one token less and one more, walked and read whole."""
    for ending in ("\ny", "\n" + "qwertyuiop" * 5):
        room = LENGTH - len(reference.encode("x" + ending)) + 1
        asked = ["z" * size for size in (room - 1, room, room + 1)]
        got = model.loglik([prompt(text) for text in asked], [[ending, ending + "k"[: len(ending) // 9]]] * 3)
        for row, text in enumerate(asked):
            values, tokens, read = reference.loglik(text, [ending, ending + "k"[: len(ending) // 9]])
            assert got.values[row] == pytest.approx(values, abs=1e-4)
            assert read + max(tokens) <= LENGTH
            assert bool(got.truncated[row]) == (len(text) + max(tokens) > LENGTH)


def test_one_request_a_prompt_for_words_of_one_token(model: VllmModel) -> None:
    before = model.usage.to_dict()
    asked = [prompt(f"{text} feel about the sentence?") for text in ("How do you", "What", "And why")]
    got = model.loglik(asked, [["a", "b", "c", "d", "e"]] * 3)
    assert got.tokens.tolist() == [[1] * 5] * 3
    assert model.usage.requests - before["requests"] == 3
    assert model.usage.prompt_tokens - before["prompt_tokens"] == got.prompt_tokens.sum()
    assert model.usage.generated_tokens == before["generated_tokens"]


def test_more_words_than_a_request_may_ask_about(model: VllmModel, reference: Reference) -> None:
    """140 different first tokens: two requests."""
    words = [chr(code) for code in (*range(33, 127), *range(0x4E00, 0x4E2E))]
    before = model.usage.requests
    got = model.loglik([prompt("How do you feel about the")], [words])
    assert got.values[0] == pytest.approx(reference.loglik("How do you feel about the", words)[0], abs=1e-4)
    first = {reference.encode(f"the{word}")[-1] for word in words}
    assert model.usage.requests - before >= -(-len(first) // 128)


def test_what_prompts_share_is_read_once(model: VllmModel) -> None:
    """Six blocks of 32 tokens in common out of 200: every request but the first finds them."""
    shared = "z" * 200
    before = model.usage.cached_tokens
    model.loglik([prompt(f"{shared} {number}") for number in range(4)], [["\na", "\nb"]] * 4)
    first = model.usage.cached_tokens - before
    assert first >= 4 * 192
    model.loglik([prompt(f"{shared} {number}") for number in range(4)], [["\na", "\nb"]] * 4)
    assert model.usage.cached_tokens - before == 2 * first


def test_a_call_depends_on_itself_alone(model: VllmModel) -> None:
    """Bit for bit: again, after other calls, and after a generation."""
    rng = random.Random(9)
    asked = [prompt("z" * 150 + text) for text in texts(rng, 20, 30)]
    choices = [["\nTrue", "\nFalse"]] * 20
    drawn = Decoding(12, ("\n",), temperature=0.7, seed=3)
    first, wrote = model.loglik(asked, choices), model.generate(asked, drawn)
    model.loglik(asked[5:7], choices[5:7])
    model.generate(asked[::-1], Decoding(5))
    assert np.array_equal(model.loglik(asked, choices).values, first.values)
    assert model.generate(asked, drawn) == wrote
    other = model.generate(asked, Decoding(12, ("\n",), temperature=0.7, seed=4))
    assert [made.text for made in other] != [made.text for made in wrote]


def test_draws_belong_to_the_prompt(model: VllmModel) -> None:
    """The same prompt draws the same text wherever it stands, and repeats of it are equal."""
    asked = [prompt("How do you feel"), prompt("What is"), prompt("How do you feel")]
    drawn = Decoding(10, (), temperature=1.0, seed=1)
    first = model.generate(asked, drawn)
    assert first[0].text == first[2].text
    assert first[0].text != first[1].text
    assert model.generate(asked[1:2], drawn)[0].text == first[1].text


def test_generation_equals_a_greedy_loop(model: VllmModel, reference: Reference) -> None:
    asked = texts(random.Random(2), 8, 30)
    plain = [reference.greedy(reference.encode(text), 16, ()) for text in asked]
    # Stop where the loop has something to find: the second half of its own text.
    halves = [text[len(text) // 2 :] for text, _, _ in plain]
    pairs = [half[at : at + 2] for half in halves for at in range(len(half) - 1) if half[at : at + 2].isascii()]
    marks = tuple(sorted(set(pairs))[:6])
    assert marks
    for stop in ((), marks):
        for made, text in zip(model.generate([prompt(text) for text in asked], Decoding(16, stop)), asked, strict=True):
            written, values, finished = reference.greedy(reference.encode(text), 16, stop)
            assert finished or not any(mark in written for mark in stop)
            assert made.text == written
            assert made.logprobs == pytest.approx(values, abs=1e-4)
            assert (made.tokens, made.finished) == (len(values), finished)
            assert made.prompt_tokens == len(reference.encode(text))
            assert not made.truncated


def test_a_long_prompt_leaves_room_for_the_answer(model: VllmModel, reference: Reference) -> None:
    for size, cut in ((LENGTH - 10, False), (LENGTH - 9, True), (3 * LENGTH, True)):
        made = model.generate([prompt("z" * size)], Decoding(10, ()))[0]
        assert (made.truncated, made.prompt_tokens) == (cut, LENGTH - 10)
        assert made.text == reference.greedy(reference.encode("z" * (LENGTH - 10)), 10, ())[0]


def test_chat_sends_messages(folder: Path, model: VllmModel, reference: Reference) -> None:
    """The template's text, encoded without adding special tokens; the engine is that of the plain model."""
    chat = VllmModel(str(folder), kv_cache_gib=0.25, chat=True)
    assert chat.fingerprint != model.fingerprint
    chat._running = model._running
    got = chat.loglik([prompt("How are you?")], [["\nfine", "\nbad"]])
    rendered = "user: How are you?\nassistant:"
    assert got.values[0] == pytest.approx(reference.loglik(rendered, ["\nfine", "\nbad"])[0], abs=1e-4)
    made = chat.generate([prompt("How are you?")], Decoding(6, ()))[0]
    assert made.text == reference.greedy(reference.encode(rendered), 6, ())[0]
    begun = Prompt("q", "", ({"role": "user", "content": "Sum"}, {"role": "assistant", "content": "It is"}), (), (), 0)
    assert chat.generate([begun], Decoding(4, ()))[0].prompt_tokens == len(
        reference.encode(
            reference.tokenizer.apply_chat_template(list(begun.messages), tokenize=False, continue_final_message=True)
        )
    )


def test_nothing_asked_nothing_started(folder: Path) -> None:
    idle = VllmModel(str(folder))
    assert isinstance(idle, LanguageModel)
    assert idle.loglik([], []).values.shape == (0, 0)
    assert idle.generate([], Decoding()) == []
    assert idle._running is None
    assert idle.max_length == LENGTH
    assert idle.versions["dtype"] == "float32"
    assert str(folder) not in idle.name + str(dict(idle.versions))


def test_fingerprint_covers_what_changes_numbers(folder: Path, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "tiny", seed=1, max_length=LENGTH)
    plain = VllmModel(str(folder))
    assert VllmModel(str(folder), max_num_seqs=3, kv_cache_gib=1, gpu_memory=0.5).fingerprint == plain.fingerprint
    assert VllmModel(str(folder), dtype="float32").fingerprint == plain.fingerprint
    changed = [
        VllmModel(str(other)),
        VllmModel(str(folder), dtype="bfloat16"),
        VllmModel(str(folder), quantization="fp8"),
        VllmModel(str(folder), max_length=100),
        VllmModel(str(folder), chat=True),
        VllmModel(str(folder), model_impl="transformers"),
    ]
    assert len({plain.fingerprint, *(made.fingerprint for made in changed)}) == 7


def test_bad_requests_say_why_and_leave_the_engine_usable(model: VllmModel) -> None:
    asked = [prompt("How")]
    with pytest.raises(ParameterError, match="1 prompts, but choices for 2"):
        model.loglik(asked, [["a"], ["b"]])
    with pytest.raises(PromptError, match="no choices"):
        model.loglik(asked, [[]])
    with pytest.raises(PromptError, match="nothing to read"):
        model.loglik([prompt("")], [["a"]])
    with pytest.raises(PromptError, match="Unicode"):
        model.loglik([prompt("\ud800")], [["a"]])
    with pytest.raises(PromptError, match="no token to continue"):
        model.generate([prompt("")], Decoding(4))
    with pytest.raises(ParameterError, match="max_tokens"):
        model.generate(asked, Decoding(0))
    with pytest.raises(ModelError, match="no room"):
        model.generate([prompt("z" * LENGTH)], Decoding(LENGTH))
    with pytest.raises(ParameterError, match=r"temperature=0\.001"):
        model.generate(asked, Decoding(4, temperature=0.001))
    with pytest.raises(ParameterError, match="temperature=-1"):
        model.generate(asked, Decoding(4, temperature=-1))
    assert model.loglik(asked, [["a"]]).tokens.tolist() == [[1]]


def test_bad_options_say_why(folder: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"data_parallel": 2}, "data-parallel-size 2"),
        ({"tensor_parallel": 0}, "tensor_parallel=0"),
        ({"dtype": "float8"}, "dtype='float8'"),
        ({"model_impl": "transformer"}, "Did you mean 'transformers'"),
        ({"gpu_memory": 90}, "gpu_memory=90"),
        ({"kv_cache_gib": 0}, "kv_cache_gib=0"),
        ({"max_num_seqs": 0}, "max_num_seqs=0"),
        ({"max_length": 1}, "max_length=1"),
    ):
        with pytest.raises(ParameterError, match=message):
            VllmModel(str(folder), **options)
    with pytest.raises(ModelError, match="holds no LoRA adapter"):
        VllmModel(str(folder), lora=tmp_path)


def test_a_scorer_of_a_campaign(folder: Path, model: VllmModel) -> None:
    scorer = load_scorer(f"vllm(model='{folder}', kv_cache_gib=0.25)")
    assert scorer.versions["engine"] == "vllm"
    scorer.model._running = model._running  # type: ignore[attr-defined]
    item = ScoreItem("q", (), ("True", "False"), prompt("How do you feel?"))
    found = scorer.score([item])[0]
    values = model.loglik([prompt("How do you feel?")], [["\nTrue", "\nFalse"]])
    assert list(found.scores.values()) == pytest.approx((values.values / values.tokens)[0].tolist(), abs=1e-12)


def save_adapter(folder: Path) -> Path:
    """A LoRA adapter of rank 4, scale 2, on queries and values, as peft writes it."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "task_type": "CAUSAL_LM", "lora_dropout": 0.0}))
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for layer, part in itertools.product(range(2), ("q_proj", "v_proj")):
        name = f"base_model.model.model.layers.{layer}.self_attn.{part}"
        weights[f"{name}.lora_A.weight"] = 0.3 * torch.randn(4, 128, generator=generator)
        weights[f"{name}.lora_B.weight"] = 0.3 * torch.randn(128, 4, generator=generator)
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_changes_the_weights(folder: Path, tmp_path: Path) -> None:
    """Against the bare model with 2 B A added to its weights; its content is part of the fingerprint."""
    from safetensors.torch import load_file

    adapter = save_adapter(tmp_path / "adapter")
    adapted, plain, literal = (
        VllmModel(str(folder), lora=adapter, kv_cache_gib=0.25),
        VllmModel(str(folder)),
        Reference(folder),
    )
    assert adapted.fingerprint != plain.fingerprint
    assert str(tmp_path) not in str(dict(adapted.versions)) + adapted.name
    choices = ["\nTrue", "\nFalse", " " + "qwertyuiop" * 3]
    before = literal.loglik("How do you feel", choices)[0]
    weights = load_file(adapter / "adapter_model.safetensors")
    for layer, part in itertools.product(range(2), ("q_proj", "v_proj")):
        name = f"base_model.model.model.layers.{layer}.self_attn.{part}"
        changed = getattr(literal.model.model.layers[layer].self_attn, part).weight
        changed.data += 2 * (weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"])
    expected = literal.loglik("How do you feel", choices)[0]
    assert max(abs(a - b) for a, b in zip(before, expected, strict=True)) > 0.01
    assert adapted.loglik([prompt("How do you feel")], [choices]).values[0] == pytest.approx(expected, abs=1e-4)
    adapted.close()


def test_an_engine_that_dies_says_what_to_do_and_starts_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that fails in the middle: the error names it, the next call is answered by another engine."""
    dying = VllmModel(str(folder), kv_cache_gib=0.25)
    asked, choices = [prompt("How"), prompt("Why")], [["a", "b"], ["c"]]
    healthy = dying.loglik(asked, choices).values

    def broken(engine: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access\nmore")

    monkeypatch.setattr(type(dying._running._llm.llm_engine), "step", broken)  # type: ignore[union-attr]
    with pytest.raises(ModelError, match=r"illegal memory access\. Answers of earlier calls are kept"):
        dying.loglik(asked, choices)
    monkeypatch.undo()
    assert dying._running is not None
    assert dying._running.closed
    assert np.array_equal(dying.loglik(asked, choices).values, healthy, equal_nan=True)
    dying.close()


def test_the_rule_for_reading_whole_prompts(model: VllmModel) -> None:
    assert model._running is not None
    assert model._running.block == 32
    words = EncodedItem((1,) * 1000, ((2, 3), (2, 4), (2, 5)))
    assert not prefill_is_cheaper(words, 128)
