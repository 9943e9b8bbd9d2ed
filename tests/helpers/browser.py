"""Opens a page in headless Chromium, and asks it how it is."""

import html
import json
import os
import re
import shutil
import subprocess

import pytest

_CHECK = """
<script>
const found = {violations: [], errors: []};
addEventListener("securitypolicyviolation", e => found.violations.push(e.blockedURI));
addEventListener("error", e => found.errors.push(e.message || e.target.src), true);
addEventListener("load", () => {
  const images = [...document.images];
  found.images = images.length;
  found.broken = images.filter(i => !i.complete || !i.naturalWidth).length;
  found.unnamed = images.filter(i => !i.alt).length;
  found.requests = performance.getEntriesByType("resource").map(r => r.name)
    .filter(name => !name.startsWith("data:"));
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  found.repeated = ids.filter((id, i) => ids.indexOf(id) !== i);
  const details = [...document.querySelectorAll("details")];
  found.folded = details.filter(d => !d.open).map(d =>
    (d.querySelector("summary h2") || d.firstElementChild).textContent.trim());
  details.forEach(d => d.open = true);
  // Scrolled tables show their hints a frame later.
  setTimeout(() => {
    const boxes = [...document.querySelectorAll(".scroll")];
    const inside = e => boxes.some(box => box !== e && box.contains(e));
    found.overflow = document.documentElement.scrollWidth - innerWidth;
    found.cut = [...document.querySelectorAll("main *, body > *, li, span")].filter(e =>
      !inside(e) && !e.closest("svg")
      && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML);
    const hint = box => box.querySelector(".hint");
    found.scrolled = boxes.filter(b => b.scrollWidth > b.clientWidth).length;
    found.hints = boxes.filter(b => hint(b) && hint(b).offsetHeight).length;
    const result = document.createElement("pre");
    result.id = "result";
    result.textContent = JSON.stringify(found);
    document.body.append(result);
    parent.postMessage(result.textContent, "*");
  }, 300);
});
</script>
"""
# Browsers open no window as narrow as a telephone.
_LEAST_WIDTH = 500
_FRAME = """<!doctype html><meta charset="utf-8"><title>frame</title>
<script>
addEventListener("message", e => {
  document.querySelector("pre").textContent = e.data;
});
</script>
<pre id="result"></pre><iframe src="page.html" width="%d" height="900"></iframe>
"""


def open_in_browser(page, tmp_path, *, width=1280):
    """Returns what the page says of itself, and what the console says of it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if browser is None:
        assert os.environ.get("CI") != "true", "CI must have a browser"
        pytest.skip("neither chromium nor google-chrome is installed")
    head = "<meta charset"
    assert head in page
    policy = "default-src 'none';"
    assert policy in page
    page = page.replace(policy, f"{policy} script-src 'unsafe-inline';", 1)
    path = tmp_path / "page.html"
    path.write_text(page.replace(head, _CHECK + head, 1), encoding="utf-8")
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-sync"
    flags += " disable-background-networking disable-component-update dump-dom"
    flags += " enable-logging=stderr v=0 virtual-time-budget=5000"
    if width < _LEAST_WIDTH:
        path = tmp_path / "frame.html"
        path.write_text(_FRAME % width, encoding="utf-8")
    done = subprocess.run(
        [
            browser,
            *(f"--{flag}" for flag in flags.split()),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},900",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    result = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert result, done.stderr
    return json.loads(html.unescape(result[1])), re.findall(r".*CONSOLE.*", done.stderr)
