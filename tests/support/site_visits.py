"""Headless Chromium on pages of a folder, and what it tells of them."""

import contextlib
import http.server
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

from support.browser import chromium

# In the head of each page: what its scripts and its pictures complain of.
_LISTENER = b"""<script>
window.complaints = [];
addEventListener("error", event => complaints.push(event.message || event.target.outerHTML), true);
addEventListener("unhandledrejection", event => complaints.push(String(event.reason)));
for (const kind of ["error", "warn"]) console[kind] = (...words) => complaints.push(words.join(" "));
</script>"""

# Loads pages one after another in a frame; one that has to find something is given time until it finds no more.
_VISITS = """<!DOCTYPE html><body><script>
const wait = milliseconds => new Promise(done => setTimeout(done, milliseconds));
async function visit({address, width, find}) {
  const frame = document.createElement("iframe");
  frame.width = width; frame.height = 900; frame.src = address;
  const loaded = new Promise(done => frame.onload = done);
  document.body.replaceChildren(frame);
  await loaded;
  const page = frame.contentDocument, all = () => [...page.querySelectorAll(find)];
  for (let before = -1; find && (all().length > before || !before);) {
    before = all().length;
    await wait(500);
  }
  return {
    address, title: page.title, complaints: frame.contentWindow.complaints,
    found: find ? all().map(one => one.textContent.trim()) : [],
    pictures: [...page.images].map(one => [one.getAttribute("src"), one.naturalWidth]),
    overflow: page.documentElement.scrollWidth - frame.contentWindow.innerWidth,
  };
}
(async () => {
  const visits = await (await fetch("/visits")).json(), told = [];
  for (const one of visits) told.push(await visit(one));
  await fetch("/told", {method: "POST", body: JSON.stringify(told)});
})();
</script>"""


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with the listener in its pages, and the page that visits them."""

    def __init__(self, *arguments, site, visits, told, missing, **keywords):
        self.visits, self.told, self.missing = visits, told, missing
        super().__init__(*arguments, directory=site, **keywords)

    def do_GET(self):
        if self.path == "/visits":
            self._answer(json.dumps(self.visits).encode(), "application/json")
        elif self.path == "/visit":
            self._answer(_VISITS.encode(), "text/html; charset=utf-8")
        elif (path := Path(self.translate_path(self.path))).suffix == ".html" and path.is_file():
            self._answer(
                path.read_bytes().replace(b"<head>", b"<head>" + _LISTENER, 1), "text/html; charset=utf-8"
            )
        else:
            super().do_GET()

    def do_POST(self):
        self.told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(b"", "text/plain")

    def _answer(self, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code, *arguments, **keywords):
        self.missing.append(self.path)
        super().send_error(code, *arguments, **keywords)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def _chromium(*words):
    """Run Chromium while the block lasts."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [chromium(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def visit(site, visits, timeout=300):
    """Return what a browser tells of visits to pages of a folder, and which addresses were not there.

    A visit is {address, width, find}: how wide the window is, and a selector of what its scripts must make, or "".
    """
    told, missing = queue.Queue(), []

    def handler(*arguments, **keywords):
        return _Handler(*arguments, site=site, visits=visits, told=told, missing=missing, **keywords)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with _chromium("--remote-debugging-port=0", f"http://127.0.0.1:{server.server_address[1]}/visit"):
            return told.get(timeout=timeout), [path for path in missing if path != "/favicon.ico"]
    finally:
        server.shutdown()
        server.server_close()
