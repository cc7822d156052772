"""Texts to vectors: encoders, an on-disk cache, and :func:`embed`, which joins them.

torch, transformers and sentence-transformers are imported when the first text has to be encoded, not before.
"""

from icl_select.embedding.cache import default_cache_folder
from icl_select.embedding.causal_lm import CausalLMEncoder
from icl_select.embedding.embeddings import Embeddings, embed, pool_mean
from icl_select.embedding.encoder import Encoded, Encoder, HashEncoder
from icl_select.embedding.load import encoder_names, load_encoder
from icl_select.embedding.onnx_encoder import OnnxEncoder
from icl_select.embedding.sentence_transformer import SentenceTransformerEncoder

__all__ = [
    "CausalLMEncoder",
    "Embeddings",
    "Encoded",
    "Encoder",
    "HashEncoder",
    "OnnxEncoder",
    "SentenceTransformerEncoder",
    "default_cache_folder",
    "embed",
    "encoder_names",
    "load_encoder",
    "pool_mean",
]
