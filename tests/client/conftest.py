from __future__ import annotations

import pytest
from client_helpers import Both


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest) -> Both:
    """The synchronous, then the asynchronous client."""
    return Both(request.param)
