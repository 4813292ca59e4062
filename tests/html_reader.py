"""A reader of HTML for tests: it fails where the document is not well formed."""

from html.parser import HTMLParser

from frcnn.report.html import VOID


class Reader(HTMLParser):
    """Reads a document, failing where tags do not match; text by the path of its elements."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.tags, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append(("/".join(self.open), data))
