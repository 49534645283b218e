"""Of all tests of pages and figures."""

import pytest

from jaxtrain.report import figures


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch):
  """Few pixels, for speed."""
  monkeypatch.setitem(figures.RC_PARAMS, "savefig.dpi", 60)
