"""Fixtures of the agents' tests."""

import gc
import ssl
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def _no_trust_store() -> Iterator[None]:
    """The servers here speak plain HTTP: reading all certificate authorities for each of 150 clients is left away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_verify_locations", lambda *arguments, **options: None)
        yield


@pytest.fixture(autouse=True)
def _no_rubbish(request: pytest.FixtureRequest) -> None:
    """Collected while the parser stands at the greatest depth, what earlier tests left would have none to end in."""
    if "deep JSON" in request.node.name:
        gc.collect()
