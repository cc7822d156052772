"""Models of a few thousand random weights and a tokenizer of whole words, made in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = [f"w{i}" for i in range(60)]
ZERO_WIDTH = "\u200b"
SPECIAL = ["[UNK]", "[PAD]", "[CLS]", "[SEP]"]


def tokenizer(*, limit: int = 32, side: str = "right", pad: bool = True, frame: bool = False) -> Any:
    """One token for each word; with `frame`, [CLS] before and [SEP] behind."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]"))
    core.normalizer = normalizers.Replace(ZERO_WIDTH, "")  # as real tokenizers clean their input
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if frame:
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"} | ({"pad_token": "[PAD]"} if pad else {})
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=limit, padding_side=side, **names)


def save_language_model(folder: Path, kind: str, **tokenizer_options: Any) -> Path:
    """A GPT-J, GPT-2 or BERT of width 16 with its tokenizer."""
    import torch
    import transformers

    size = len(SPECIAL) + len(WORDS)
    configs = {
        "gptj": lambda: transformers.GPTJConfig(
            vocab_size=size, n_embd=16, n_layer=2, n_head=2, rotary_dim=4, n_positions=64
        ),
        "gpt2": lambda: transformers.GPT2Config(vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=64),
        "bert": lambda: transformers.BertConfig(
            vocab_size=size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        ),
    }
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(configs[kind]()).float()
    with torch.no_grad():  # fresh models have weights near 0.02: make layers matter
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(folder)
    tokenizer(**tokenizer_options).save_pretrained(folder)
    return folder


def save_sentence_model(folder: Path, *, normalise: bool, prompt: str | None = None) -> Path:
    """A sentence-transformers folder: tiny BERT, mean pooling, and a normalisation if asked."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    save_language_model(folder / "bert", "bert", frame=True, limit=12)
    transformer = Transformer(str(folder / "bert"))
    modules = [transformer, Pooling(16, pooling_mode="mean"), *([Normalize()] if normalise else [])]
    prompts = {"query": prompt} if prompt else None
    model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts)
    if prompt:
        model.default_prompt_name = "query"
    model.save(str(folder / "model"))
    return folder / "model"
