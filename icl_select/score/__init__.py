"""Who answers the queries: the protocol, a baseline without a model, and a fake for tests."""

from icl_select.score.knn import KnnScorer
from icl_select.score.language_model import RULES, ModelScorer
from icl_select.score.load import load_scorer, scorer_names
from icl_select.score.protocol import Generation, LanguageModel, Loglik, Scorer
from icl_select.score.table import TableScorer

__all__ = [
    "RULES",
    "Generation",
    "KnnScorer",
    "LanguageModel",
    "Loglik",
    "ModelScorer",
    "Scorer",
    "TableScorer",
    "load_scorer",
    "scorer_names",
]
