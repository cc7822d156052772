"""Which labelled examples to show with a query: exact cosine neighbours, and the order they stand in."""

from icl_select.retrieve.ordering import ORDERS, order
from icl_select.retrieve.retriever import Retriever

__all__ = ["ORDERS", "Retriever", "order"]
