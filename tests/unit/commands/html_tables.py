"""An HTML page as tests look at it."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags with their attributes, and the cells of each table, as text; bold cells stand between stars."""

    def __init__(self, path) -> None:
        super().__init__()
        self.tags, self.tables, self.text, self.in_cell = [], [], "", False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.in_cell = self.in_cell or tag in ("td", "th")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.handle_data("*" if tag == "strong" else "")

    def handle_endtag(self, tag):
        self.handle_data("*" if tag == "strong" else "")
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self.in_cell:
            self.tables[-1][-1][-1] += data.strip()

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]
