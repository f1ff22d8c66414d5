"""What the tests of the report look at: its data, its charts with a choice made, its picture in a browser."""

import copy
import json
import re
from html.parser import HTMLParser

import vl_convert

from kornia_lightning_probe.reporting.html.charts import charts_of, datasets_of
from kornia_lightning_probe.reporting.html.numbers import page_numbers


def objects_of(dataset):
    """A dataset as the page makes it: an object for each row."""
    shared, objects = dataset["shared"], []
    for row in dataset["rows"]:
        whole = ([*row[:shared], *others] for others in zip(*row[shared:], strict=True))
        objects += [dict(zip(dataset["columns"], values, strict=True)) for values in whole]
    return objects


def drawn(probed, name, **chosen):
    """A chart as SVG, with other values of its parameters."""
    numbers = page_numbers(probed)
    spec = copy.deepcopy(charts_of(numbers)[name])
    for param in spec["params"]:
        param["value"] = chosen.get(param["name"], param["value"])
    spec["datasets"] = {name: objects_of(dataset) for name, dataset in datasets_of(numbers).items()}
    return vl_convert.vegalite_to_svg(json.dumps(spec))


def words_of(svg):
    """Every text in a picture."""
    return [text for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg) if text]


class Page(HTMLParser):
    """Reads a page as a browser does: its elements with their attributes, and its text outside of scripts.

    Attributes:
        elements: (tag, attributes) in their order.
        text: what is between them.
        scripts: the text of each script.
    """

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.scripts = [], "", []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    @property
    def data(self):
        """What the charts of each probe are drawn from."""
        kinds = [attributes.get("type") for tag, attributes in self.elements if tag == "script"]
        pairs = zip(kinds, self.scripts, strict=True)
        return [json.loads(text) for kind, text in pairs if kind == "application/json"]
