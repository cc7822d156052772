"""Fixtures for all tests of the service."""

from __future__ import annotations

from databases import database_url, postgres_url
from engine_cases import stage
from store_cases import database
from work_cases import here

__all__ = ["database", "database_url", "here", "postgres_url", "stage"]
