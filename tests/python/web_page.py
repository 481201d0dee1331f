"""web_page.py: `tq serve` and a browser with its page, for test_web.py."""
import contextlib
import json
import pathlib
import re
import urllib.request

from playwright.sync_api import expect, sync_playwright

from server_process import Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHROMIUM = "/usr/bin/chromium"
ANSWER_MS = 180000  # the longest answer here takes a few seconds on an idle machine
STEP_MS = 60000
expect.set_options(timeout=STEP_MS)

# Runs in every page before its own scripts: what breaks the policy becomes a console error, which fails the test.
WATCH = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`));
"""


@contextlib.contextmanager
def served(tq, *options):
    """A server with the bundled model, which must end well: its URL."""
    with Server(tq, *options) as server:
        yield server.url
        code = server.stop()
        assert code == 0, f"tq serve ended with {code}: {server.text().decode()[-2000:]}"


class Visit:
    """A fresh browser profile on the page."""

    def __init__(self, browser, url, **options):
        self.url = url
        options.setdefault("viewport", {"width": 1280, "height": 800})
        options.setdefault("reduced_motion", "reduce")  # what is measured does not move
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(STEP_MS)
        self.context.add_init_script(WATCH)
        self.page = self.context.new_page()
        self.errors = []
        self.page.on("console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)
        expect(self.page.locator("#model")).to_have_text(re.compile("bookworm"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def set(self, **settings):
        """As if typed into the settings of an earlier visit."""
        self.page.evaluate("(s) => localStorage.setItem('tq.settings', JSON.stringify({...JSON.parse(localStorage.getItem('tq.settings') ?? '{}'), ...s}))", settings)
        self.page.reload()
        expect(self.page.locator("#model")).to_have_text(re.compile("bookworm"))

    def ask(self, text, wait=True):
        """The text of the answer, if waited for."""
        self.page.fill("#input", text)
        self.page.press("#input", "Enter")
        return self.answer() if wait else None

    def answer(self):
        """The newest answer, once it is complete."""
        expect(self.page.locator(".message.running")).to_have_count(0, timeout=ANSWER_MS)
        return self.newest().inner_text()

    def newest(self):
        return self.page.locator(".message.assistant .markdown").last

    def drop(self, name, text):
        transfer = self.page.evaluate_handle(
            "([name, text]) => { const t = new DataTransfer(); t.items.add(new File([text], name, {type: 'text/plain'})); return t; }", [name, text])
        for event in ("dragenter", "dragover", "drop"):
            self.page.dispatch_event("body", event, {"dataTransfer": transfer})

    def attribute_counts(self, selector):
        return self.page.locator(selector).count()

    def overflow(self):
        """Pixels by which the page is wider than the window."""
        return self.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")


def sse(*chunks):
    """The body of a stream of chat chunks."""
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def said(text, **more):
    return {"choices": [{"index": 0, "delta": {"content": text}, **more}]}


@contextlib.contextmanager
def chromium():
    with sync_playwright() as playwright:
        # No sandbox: as root, in containers, there is none.  The only pages are ours.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def get_json(url, path, body=None):
    request = urllib.request.Request(url + path, data=json.dumps(body).encode() if body else None, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)
