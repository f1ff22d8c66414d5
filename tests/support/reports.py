"""What the tests of the report look at: its data, its charts with a choice made, its picture in a browser."""

import copy
import json
import re
from html.parser import HTMLParser

import vl_convert

from kornia_lightning_probe.reporting.html.charts import charts_of
from kornia_lightning_probe.reporting.html.numbers import page_numbers
from kornia_lightning_probe.reporting.html.page import views_of


def column_of(packed, count):
    """A column as the page reads it."""
    if "numbers" not in packed:
        return [packed["same"]] * count
    return [None if number is None else number / packed["per"] for number in packed["numbers"]]


def objects_of(cells, views):
    """The rows of one metric as the page makes them, of means and of single views."""
    keys = [(result, *cell) for result in cells["results"] for cell in cells["cells"]]
    columns = {name: column_of(packed, len(keys)) for name, packed in cells["means"].items()}
    places = [dict(zip("ejk", key, strict=True)) for key in keys]
    means = [place | {name: column[i] for name, column in columns.items()} for i, place in enumerate(places)]
    severities = [(place, x) for place in places for x in views[place["k"]]["x"]]
    columns = {name: column_of(packed, len(severities)) for name, packed in cells["levels"].items()}
    levels = []
    for i, (place, x) in enumerate(severities):
        view = views[place["k"]]
        row = place | {"x": x, "o": view["curve"]} | {name: column[i] for name, column in columns.items()}
        if x == view["x"][0] and view["starts"] and cells["start"] is not None:
            levels.append({**row, "x": 0.0, "y": cells["start"], "s": 0.0})
        levels.append(row)
    return {"means": means, "levels": levels}


def rows_of(probed, metric=0):
    """The rows of a metric, packed and made again."""
    numbers = page_numbers(probed)
    return objects_of(numbers.cells[metric].packed(), views_of(numbers))


def drawn(probed, name, **chosen):
    """A chart as SVG, with other values of its parameters."""
    spec = copy.deepcopy(charts_of(page_numbers(probed))[name])
    for param in spec["params"]:
        param["value"] = chosen.get(param["name"], param["value"])
    spec["datasets"] = rows_of(probed, chosen.get("metric", 0))
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
