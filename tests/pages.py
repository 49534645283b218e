"""A page taken apart, for tests of pages."""

import html.parser

VOID = ("meta", "img", "input", "source")


class Page(html.parser.HTMLParser):
  """A page taken apart: elements with attributes, text by element, ids; tags must balance."""

  def __init__(self, path):
    super().__init__(convert_charrefs=True)
    with open(path, encoding="utf-8") as file:
      self.source = file.read()
    self.open, self.elements, self.rows, self.words = [], [], [], []
    self.feed(self.source)
    self.close()
    assert not self.open, f"left open: {self.open}"
    self.text = " ".join("".join(self.words).split())

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    assert len(dict(attrs)) == len(attrs), f"an attribute stands twice in {tag}"
    if tag not in VOID:
      self.open.append(tag)
    if tag == "tr":
      self.rows.append([])
    if tag in ("td", "th"):
      self.rows[-1].append("")

  def handle_endtag(self, tag):
    assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"
    self.words.append(" ")

  def handle_data(self, data):
    if self.open and self.open[-1] not in ("style", "script"):
      self.words.append(data)
      if {"td", "th"} & set(self.open[-2:]):
        self.rows[-1][-1] += data

  def all(self, tag, attribute):
    """Values of an attribute of the elements of a kind."""
    return [attrs[attribute] for name, attrs in self.elements if name == tag and attribute in attrs]
