"""Fixtures of the agents' tests."""

import ssl
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def _no_trust_store() -> Iterator[None]:
    """The servers here speak plain HTTP: reading all certificate authorities for each of 150 clients is left away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_verify_locations", lambda *arguments, **options: None)
        yield
