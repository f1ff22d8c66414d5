"""Opens a report in a browser without a window, where the machine has one."""

import json
import re
import shutil
import subprocess

import pytest
import torch
from support.made_results import SENSITIVITY, made_result, table_of

from kornia_lightning_probe.reporting.html import Probed, Thumbnails, numbers, write_report
from kornia_lightning_probe.reporting.html.thumbnails import address_of


def runs(name):
    """Whether a program is a browser, and not what some systems have in its place."""
    path = shutil.which(name)
    if path is None:
        return False
    return subprocess.run([path, "--version"], capture_output=True, check=False, timeout=60).returncode == 0  # noqa: S603


BROWSER = next(filter(runs, ("chromium", "chromium-browser", "google-chrome")), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: the page is not opened in a browser")
# Whatever would leave the page is refused by nobody listening there.
ALONE = ("--headless", "--disable-gpu", "--no-sandbox", "--disable-dev-shm-usage", "--proxy-server=127.0.0.1:9")

# What the pages' readers share: waiting, words of a chart, and writing down what was seen.
COMMON = """
const wait = (done) => new Promise((resolve) => {
  const look = () => (done() ? resolve() : setTimeout(look, 20));
  look();
});
const root = document.documentElement;
const words = (name) => [...document.querySelectorAll(`[data-chart=${name}] text`)].map((text) => text.textContent);
const write = (seen) => {
  seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  const report = document.createElement("pre");
  report.id = "seen";
  report.textContent = JSON.stringify(seen);
  document.body.append(report);
};
"""

# Clicks and chooses as a reader does.
READER = """
const selects = document.querySelectorAll("select");
const choices = () => Object.fromEntries([...selects].map((each) => [each.name, each.value]));
wait(() => root.dataset.drawn || root.dataset.failed).then(async () => {
  const seen = { failed: root.dataset.failed || "", first: choices(), now: words("now") };
  const cells = [...document.querySelectorAll("[data-chart=now] path[aria-roledescription='rect mark']")];
  const cell = cells.find((each) => (each.getAttribute("aria-label") || "").includes(CELL));
  cell.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  await wait(() => choices().layer !== seen.first.layer);
  seen.clicked = choices();
  seen.heading = document.querySelectorAll("h2")[2].textContent;
  const when = document.querySelector("select[name=when]");
  when.value = "0";
  when.dispatchEvent(new Event("change", { bubbles: true }));
  await wait(() => words("now").join() !== seen.now.join());
  seen.before = words("now");
  seen.rows = document.querySelectorAll(".chosen tbody tr").length;
  write(seen);
});
"""

# Looks at all of a page, and chooses a metric that is shown at fewer results.
LOOKER = """
wait(() => root.dataset.drawn || root.dataset.failed).then(async () => {
  const seen = { failed: root.dataset.failed || "", harmed: root.dataset.harmed || "" };
  seen.drawn = [...document.querySelectorAll("[data-chart]")].map((each) => each.querySelectorAll("svg").length);
  seen.pictures = [...document.images].map((each) => [each.naturalWidth, each.naturalHeight]);
  const [when, metric] = ["when", "metric"].map((name) => document.querySelector(`select[name=${name}]`));
  when.value = "1";
  when.dispatchEvent(new Event("change", { bubbles: true }));
  metric.value = "1";
  metric.dispatchEvent(new Event("change", { bubbles: true }));
  await wait(() => words("now").includes("7.00"));
  seen.when = when.value;
  seen.open = [...when.options].filter((each) => !each.disabled).map((each) => Number(each.value));
  seen.told = document.querySelector(".told").textContent;
  dispatchEvent(new Event("beforeprint"));
  seen.folded = document.querySelectorAll("details:not([open])").length;
  write(seen);
});
"""


def opened(path, reader):
    """What the reader has seen of a page, and what the browser said on its console."""
    page = path.read_text(encoding="utf-8")
    path.write_text(f"{page}<script>{COMMON}{reader}</script>", encoding="utf-8")
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [
        shutil.which(BROWSER),
        *ALONE,
        profile,
        "--enable-logging=stderr",
        "--virtual-time-budget=20000",
        "--dump-dom",
    ]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)  # noqa: S603
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    told = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return json.loads(told), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_browser_draws_the_page_alone_and_a_click_and_a_choice_change_it(tmp_path):
    before, now = (made_result(epoch=epoch) for epoch in (-1, 1))
    now.tables["sensitivity"].value.add_(5.0)
    path = tmp_path / "report.html"
    write_report(path, [Probed("<b>probe</b>", [before, now])])
    seen, console = opened(path, READER.replace("CELL", json.dumps("layer: conv1; augmentation: hflip")))
    assert seen["failed"] == ""
    assert console == []
    assert seen["requests"] == []
    # The last epoch, of input, conv1, conv2, fc, output the last, since no embedding is known, and what moves it most.
    assert seen["first"] == {"metric": "0", "augmentation": "2", "layer": "4", "when": "1"}
    assert seen["clicked"] == {"metric": "0", "augmentation": "0", "layer": "1", "when": "1"}
    assert seen["heading"] == "Over the training: sensitivity under hflip"
    # The flip at the pixels.
    assert "5.00" in seen["now"]
    assert "5.00" not in seen["before"]
    # Three augmentations at five layers.
    assert seen["rows"] == 15


HARM = "<img src=x onerror='document.documentElement.dataset.harmed = 1'>"


def test_runs_pictures_and_hostile_names_are_drawn_and_a_choice_snaps_to_what_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(numbers, "_ROOM", 0)
    names = (HARM, "</script><script>document.documentElement.dataset.harmed = 2</script>", "a\"b'c\n`${1}`")
    history = [made_result(names, ladders={HARM: (1.0, 2.0)}, epoch=epoch) for epoch in range(-1, 8)]
    for result in history:
        sevens = torch.full((2, 5), 7.0)
        result.tables["other"] = table_of(("input", *names, "output"), sevens, quantity=SENSITIVITY)
    address = address_of(torch.zeros(4, 6, 3, dtype=torch.uint8))
    pair = Thumbnails(address, address, HARM)
    path = tmp_path / "report.html"
    write_report(path, [Probed(HARM, history, model=HARM, worst=[pair]), Probed("b", history)])
    seen, console = opened(path, LOOKER)
    assert (seen["failed"], seen["harmed"], console, seen["requests"]) == ("", "", [], [])
    # Those of both runs, and the four of each.
    assert seen["drawn"] == [1] * 10
    assert seen["pictures"] == [[6, 4], [6, 4]]
    # Of nine results 0, 3, 5 and 8 are held, and 0 is the nearest to 1.
    assert (seen["open"], seen["when"]) == ([0, 3, 5, 8], "0")
    assert seen["told"] == f"output under {HARM}, before training: 7.000 \u00b1 0.010"
    assert seen["folded"] == 0
