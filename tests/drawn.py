"""What tests ask of figures."""

from jaxtrain.report import pictures

PHONE, PAGE = 640 / 120, 9.2  # inches: 640 pixels at 120 an inch, and the width of a page


def texts(figure):
  """All text of a figure."""
  return " | ".join(t.get_text() for t in figure.findobj(lambda artist: hasattr(artist, "get_text")) if t.get_text())


def assert_fits(family, *data):
  """A figure fits a page and, narrow, a phone, and its caption says what to look for."""
  wide, narrow = family(*data), family(*data, narrow=True)
  assert narrow.get_size_inches()[0] <= PHONE and wide.get_size_inches()[0] <= PAGE
  assert pictures.caption_of(family, wide).startswith("Look for ")
