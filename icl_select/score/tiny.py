"""A tiny language model with random weights: real files for the real engines, accuracy at chance."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from icl_select._files import make_folder
from icl_select._optional import require
from icl_select._quiet import without_bars
from icl_select.errors import StoreError

__all__ = ["TINY", "make_tiny_model"]

TINY = "tiny"

# Changed weights are another recipe: a model of an older one in the cache folder is made anew.
_RECIPE = 2
# The last token against what the layers add of the context, the spread of the logits, and how far the follower of a
# token stands above them: chosen so that texts differ by context and near-ties are rare.
_EMBEDDING, _OUTPUT, _FOLLOWER = 1.5, 8.0, 1.2
# Tokens of a chain before it comes to a line break.
_CHAIN = 16

_SAMPLE = (
    "Are the following two sentences 'equivalent' or 'not equivalent'? How do you feel about the sentence? "
    "very negative neutral positive great terrible answer: question: title: content: The topic is summary "
    "Based on that information, is the claim True, False, or Inconclusive? SELECT name FROM state WHERE "
    "company artist athlete building village animal plant album film written work hotel train restaurant "
    "write a short summary: TL;DR: -- Using valid SQLite, answer the questions for the tables provided above. "
)


def make_tiny_model(folder: Path, *, seed: int = 0, vocabulary: int = 1024, max_length: int = 4096) -> Path:
    """Write a Llama of half a million parameters with random weights, and a byte-level tokenizer made for it.

    Parameters
    ----------
    folder : Path
        Made if it is not there; a complete model in it is used as it is.
    seed : int, default=0
    vocabulary : int, default=1024
        Tokens at most, at least 260.
    max_length : int, default=4096
        Tokens that it reads.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    MissingDependencyError
        If torch, transformers or tokenizers is not installed.
    StoreError
        If the folder cannot be written.

    Notes
    -----
    Engines round differently, and a text forks where two tokens are as likely as each other. So that they still write
    the same, most texts are laid down: a token that ends in a small letter has one follower, far more likely than any
    other token, and chains of up to 16 followers end in a line break. After any other token, such as the colon or
    line break that a prompt ends with, the context decides, with scaled output weights; so do all other
    log-probabilities. The same seed gives the same weights with one version of torch.
    """
    made_of = json.dumps({"recipe": _RECIPE, "seed": seed, "vocabulary": vocabulary, "max_length": max_length})
    if _is_made(folder, made_of):
        return folder
    torch = require("torch", extra="models", purpose="the tiny model")
    transformers = require("transformers", extra="models", purpose="the tiny model")
    weights = require("safetensors", extra="models", purpose="the tiny model")
    make_folder(folder.parent)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        tokenizer = _tokenizer(vocabulary)
        tokenizer.save_pretrained(draft)
        config = transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=False,
        )
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            model = transformers.LlamaForCausalLM(config)
            _lay_chains(model, tokenizer, torch)
        with without_bars():
            model.to(torch.float32).save_pretrained(draft)
        (draft / "complete").write_text(made_of, encoding="utf-8")
        if not _is_made(folder, made_of):
            shutil.rmtree(folder, ignore_errors=True)
            draft.replace(folder)
    except (OSError, weights.SafetensorError) as exc:
        raise StoreError(
            f"cannot write the tiny model to {folder} ({exc}). Free some space (it takes 2 MB), or set ICS_CACHE_DIR "
            "to another folder."
        ) from exc
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _is_made(folder: Path, made_of: str) -> bool:
    marker = folder / "complete"
    return marker.is_file() and marker.read_text(encoding="utf-8") == made_of


def _lay_chains(model: Any, tokenizer: Any, torch: Any) -> None:
    """Give every token that ends in a small letter its follower, and let the context speak after all others."""
    embedding = model.get_input_embeddings().weight.mul_(_EMBEDDING)
    output = model.get_output_embeddings().weight.mul_(_OUTPUT)
    ends = [tokenizer.decode([token])[-1:] for token in range(len(tokenizer))]
    letters = torch.tensor([token for token, end in enumerate(ends) if "a" <= end <= "z"])
    order = letters[torch.randperm(len(letters))]
    (line_break,) = tokenizer.encode("\n")
    for place, token in enumerate(order):
        last = place % _CHAIN == _CHAIN - 1
        follower = line_break if last else order[(place + 1) % len(order)]
        output[follower] += _FOLLOWER * embedding[token] / embedding[token].norm()


def _tokenizer(vocabulary: int) -> Any:
    tokenizers = require("tokenizers", extra="models", purpose="the tiny model")
    transformers = require("transformers", extra="models", purpose="the tiny model")
    raw = tokenizers.Tokenizer(tokenizers.models.BPE())
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([_SAMPLE] * 4, trainer)
    messages = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    wrapped.chat_template = messages + "{% if add_generation_prompt %}assistant:{% endif %}"
    return wrapped
