"""Who answers the queries: the protocols, language models with their rules and cache, a baseline, and fakes."""

from icl_select.score.answers import CachedModel
from icl_select.score.fake_model import HashModel, TableModel
from icl_select.score.knn import KnnScorer
from icl_select.score.language_model import ModelScorer
from icl_select.score.load import load_scorer, scorer_names
from icl_select.score.protocol import Generation, LanguageModel, Loglik, Scorer, Usage
from icl_select.score.rules import RULES
from icl_select.score.schedule import prefix_order, reusable_tokens, reused_tokens
from icl_select.score.table import TableScorer
from icl_select.score.uncertainty import uncertainty

__all__ = [
    "RULES",
    "CachedModel",
    "Generation",
    "HashModel",
    "KnnScorer",
    "LanguageModel",
    "Loglik",
    "ModelScorer",
    "Scorer",
    "TableModel",
    "TableScorer",
    "Usage",
    "load_scorer",
    "prefix_order",
    "reusable_tokens",
    "reused_tokens",
    "scorer_names",
    "uncertainty",
]
