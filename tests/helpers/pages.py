"""Pages as a browser would take them, and text that tries to get out of its place."""

from html.parser import HTMLParser

NASTY = "</script><script>document.title = 'out'</script><img src=x onerror=alert(1)>\"'&"


class Page(HTMLParser):
    """Tags, text, and rows of cells, as a browser would take them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.rows, self.scripts, self.inside = [], [], [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = dict(attrs).get("id", "code") if tag == "script" else tag
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside in ("plotly", "charts", "code", "style"):
            self.scripts[self.inside] = data
            return
        self.words.append(data)
        if self.inside == "td" or (self.inside == "button" and self.rows):
            self.rows[-1].append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())
