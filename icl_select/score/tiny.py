"""A tiny language model with random weights: real files for the real engines, accuracy at chance."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from icl_select._files import make_folder
from icl_select._optional import require

__all__ = ["TINY", "make_tiny_model"]

TINY = "tiny"

_SAMPLE = (
    "Are the following two sentences 'equivalent' or 'not equivalent'? How do you feel about the sentence? "
    "very negative neutral positive great terrible answer: question: title: content: The topic is summary "
    "Based on that information, is the claim True, False, or Inconclusive? SELECT name FROM state WHERE "
    "company artist athlete building village animal plant album film written work hotel train restaurant "
    "write a short summary: TL;DR: -- Using valid SQLite, answer the questions for the tables provided above. "
)


def make_tiny_model(folder: Path, *, seed: int = 0, vocabulary: int = 1024, max_length: int = 2048) -> Path:
    """Write a Llama of 0.6 million parameters with random weights, and a byte-level tokenizer made for it.

    Parameters
    ----------
    folder : Path
        Made if it is not there; a complete model in it is used as it is.
    seed : int, default=0
    vocabulary : int, default=1024
        Tokens at most, at least 260.
    max_length : int, default=2048
        Tokens that it reads.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    MissingDependencyError
        If torch, transformers or tokenizers is not installed.

    Notes
    -----
    Output weights are scaled so that the most likely token stands out: engines that round differently then still
    write the same text. The same seed gives the same weights with one version of torch.
    """
    if (folder / "complete").exists():
        return folder
    torch = require("torch", extra="models", purpose="the tiny model")
    transformers = require("transformers", extra="models", purpose="the tiny model")
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = transformers.LlamaForCausalLM(config)
            with torch.no_grad():
                model.lm_head.weight.mul_(8)
        model.to(torch.float32).save_pretrained(draft)
        (draft / "complete").write_text("icl-select tiny model: random weights, for tests of the machinery only\n")
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(draft, folder)  # noqa: PTH105
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


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
