# SPDX-License-Identifier: Apache-2.0
"""A page of a real browser, for the tests of what is drawn; a plug-in of pytest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import Browser, browser, chromium_or_skip


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Start the browser, once for a file of tests; they are skipped where there is none."""
    with browser(chromium_or_skip()) as page:
        yield page


@pytest.fixture
def page(chromium: Browser) -> Browser:
    """Return its page, with no errors and no requests of an earlier test."""
    chromium.errors.clear()
    chromium.requests.clear()
    return chromium
