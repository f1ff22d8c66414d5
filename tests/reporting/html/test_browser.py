"""Opens a report in a browser without a window, where the machine has one."""

import json
import re
import shutil
import subprocess

import pytest
from support.made_results import made_result

from kornia_lightning_probe.reporting.html import Probed, write_report


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

# Clicks and chooses as a reader does, and writes down what is to be seen then.
READER = """
<script>
const wait = (done) => new Promise((resolve) => {
  const look = () => (done() ? resolve() : setTimeout(look, 20));
  look();
});
const root = document.documentElement;
const words = (name) => [...document.querySelectorAll(`[data-chart=${name}] text`)].map((text) => text.textContent);
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
  seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  const report = document.createElement("pre");
  report.id = "seen";
  report.textContent = JSON.stringify(seen);
  document.body.append(report);
});
</script>
"""


def opened(path):
    """What the reader has seen of a page, and what the browser said on its console."""
    page = path.read_text(encoding="utf-8")
    script = READER.replace("CELL", json.dumps("layer: conv1; augmentation: hflip"))
    path.write_text(f"{page}{script}", encoding="utf-8")
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
    seen, console = opened(path)
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
