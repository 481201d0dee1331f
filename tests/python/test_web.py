"""The page of `tq serve` in Chromium, on the real server with the bundled model.

usage: test_web.py PATH_TO_tq [--only NAME]
Prints 'N passed, N failed' last; exits 1 if anything failed.
"""
import argparse
import json
import os
import re
import tempfile
import time
import traceback
import urllib.parse
import urllib.request

from playwright.sync_api import expect

import tally
from server_process import events_of, request
from tally import check, finish
from web_page import ANSWER_MS, ROOT, Visit, chromium, get_json, said, served, sse

FACT = "Hugo Marsh lives in Lisbon. Where does Hugo Marsh live?"
STORY = "Tell me a long story about the sea."
PASSAGE = (ROOT / "scripts/demo/passage.txt").read_text()
DOCUMENT = "The secret number of Hugo Marsh is 40517. Oscar Frost works as a miller.\n\n" + PASSAGE[:9000]
QUESTION = "What is the secret number of Hugo Marsh?"
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}

HOSTILE = (
    "<script>window.pwned = 1</script> <img src=x onerror='window.pwned = 2'> <iframe src='javascript:window.pwned=3'></iframe>\n\n"
    "[press](javascript:window.pwned=4) ![x](https://example.org/track.png) [data](data:text/html,<script>window.pwned=5</script>) "
    "<javascript:window.pwned=6> [fine](https://example.org/?a=\"onmouseover=window.pwned=7)\n\n"
    "```<img src=x onerror=window.pwned=8>\n</code></pre><script>window.pwned = 9</script>\n```\n\n"
    "| <b>a</b> | b |\n|--|--|\n| <svg onload=window.pwned=10> | c |\n")

TESTS = []


def test(function):
    TESTS.append(function)
    return function


# ---- answering ------------------------------------------------------------------------------------------------------


@test
def an_answer_streams_in(browser, url):
    with Visit(browser, url) as v:
        v.set(temperature=0, max_tokens=400)
        v.ask(STORY, wait=False)
        seen = set()
        deadline = time.time() + ANSWER_MS / 1000
        while time.time() < deadline and v.page.locator(".message.running").count() + (not seen):
            if v.newest().count():
                seen.add(len(v.newest().inner_text()))
            v.page.wait_for_timeout(30)
        check(len(seen) >= 4, f"the answer came at once, not bit by bit: lengths {sorted(seen)}")
        v.page.click("#new")
        check("Lisbon" in v.ask(FACT), f"the answer to {FACT!r}: {v.newest().inner_text()!r}")
        meta = v.page.locator(".meta").last.inner_text()
        check(re.search(r"tq3 · \d+ tokens · \d.*tokens/s · first after", meta), f"what is said of the answer: {meta!r}")
        facts = v.page.locator("#panel dd").all_inner_texts()
        check(all(re.match(r"\d", fact) for fact in facts), f"speed, first token, prompt, cached: {facts}")
        expect(v.page.locator("#announcer")).to_contain_text("Lisbon")
        return v.errors


@test
def stop_stops_the_server_too(browser, url):
    with Visit(browser, url) as v:
        v.set(temperature=0, max_tokens=4000)
        v.ask(STORY, wait=False)
        expect(v.newest()).to_have_text(re.compile(r"\w{3}.{40}", re.S), timeout=ANSWER_MS)
        expect(v.page.locator("#send")).to_have_attribute("aria-label", "Stop")
        v.page.click("#send")
        text = v.answer()
        check("stopped" in v.page.locator(".meta").last.inner_text(), "the answer is not marked as stopped")
        v.page.wait_for_timeout(300)
        check(v.newest().inner_text() == text, "the text grew after it was stopped")
        for _ in range(600):
            running = [slot for slot in get_json(url, "/slots") if slot.get("state") not in (None, "free", "idle")]
            if not running:
                break
            time.sleep(0.1)
        check(not running, f"the server still works for nobody: {running}")
        return v.errors


@test
def edits_and_retries_keep_what_was(browser, url):
    with Visit(browser, url) as v:
        v.set(temperature=0, max_tokens=24)
        first = v.ask(FACT)
        v.page.get_by_label("Answer again").last.click()
        check(v.answer() == first, "greedy answers to the same question differ")
        expect(v.page.locator(".message.assistant .branches")).to_contain_text("2/2")
        v.page.locator(".message.assistant").get_by_label("Earlier version").click()
        expect(v.page.locator(".message.assistant .branches")).to_contain_text("1/2")

        v.page.locator(".message.user").hover()
        v.page.get_by_label("Edit and send again").click()
        v.page.get_by_label("Edit message").fill("Hugo Marsh lives in Cairo. Where does Hugo Marsh live?")
        v.page.get_by_label("Edit message").press("Enter")
        check("Cairo" in v.answer(), f"the answer to the edited question: {v.newest().inner_text()!r}")
        expect(v.page.locator(".message.user .branches")).to_contain_text("2/2")
        v.page.locator(".message.user").hover()
        v.page.locator(".message.user").get_by_label("Earlier version").click()
        expect(v.page.locator(".message.user .branches")).to_contain_text("1/2")
        check(v.newest().inner_text() == first, "the first version's answer is lost")
        check(v.attribute_counts(".message") == 2, "versions are shown one after the other")
        return v.errors


# ---- documents and the cache ----------------------------------------------------------------------------------------


@test
def a_document_becomes_packed_pages(browser, url):
    with Visit(browser, url) as v:
        v.set(temperature=0, max_tokens=40)
        v.drop("notes.txt", DOCUMENT)
        want = len(get_json(url, "/tokenize", {"content": DOCUMENT})["tokens"])
        expect(v.page.locator(".box .chip")).to_contain_text(f"{want:,} tokens")
        progress = []
        v.page.on("request", lambda r: progress.append(r.post_data_json) if r.url.endswith("completions") else None)
        v.ask(QUESTION, wait=False)
        live = set()
        while v.page.locator(".message.running").count():
            live.add(v.page.locator(".strip").get_attribute("aria-label"))
            v.page.wait_for_timeout(20)
        check("40517" in v.answer(), f"the answer from the document: {v.newest().inner_text()!r}")
        check(len(live) > 2, f"the strip stood still while the document was read: {live}")
        content = progress[0]["messages"][-1]["content"]
        check(DOCUMENT.strip() in content and content.endswith(QUESTION), "the request lacks the document or the question")
        packed, exact = v.attribute_counts(".page.packed, .page.shared"), v.attribute_counts(".page.exact")
        check(packed >= want // 128 - 2, f"{want} tokens show as {packed} packed pages")
        check(2 <= exact <= 4, f"{exact} exact pages: want the first rows and the window")
        words = v.page.locator(".strip-words").inner_text()
        factor = float(re.search(r"([\d.]+)×", words).group(1))
        check(2.5 < factor < 5.2, f"tq3 of {want} tokens against f16: {words!r}")
        heights = v.page.evaluate("() => [...document.querySelectorAll('.page')].map((p) => [p.className, p.firstChild.offsetHeight / p.offsetHeight])")
        check(all(h > 0.95 if "exact" in kind else 0.1 < h < 0.45 for kind, h in heights), f"heights of pages: {heights[:3]}")

        # The same beginning in another conversation: its pages are the ones that are there.
        v.page.click("#new")
        v.drop("notes.txt", DOCUMENT)
        v.ask("Where does Oscar Frost work?")
        check(v.attribute_counts(".page.shared") >= want // 128 - 6, f"{v.attribute_counts('.page.shared')} shared pages for the same document")
        cached = int(v.page.locator("#panel dd").nth(3).inner_text().replace(",", ""))
        check(cached > 0.7 * want, f"{cached} of {want} tokens came from the cache")
        return v.errors


@test
def the_cache_is_reported_while_it_grows(browser, url):
    body = {"messages": [{"role": "user", "content": DOCUMENT[:4000]}], "stream": True, "max_tokens": 1500, "ignore_eos": True, "timings_per_token": True,
            "cache_prompt": False}  # long enough to be reported of more than once by the fastest machine
    status, _, got = request(urllib.parse.urlsplit(url).port, "POST", "/v1/chat/completions", body)  # checks the contract
    chunks = [json.loads(event) for event in events_of(got) if event != "[DONE]"]
    reports = [chunk["turboquant"]["tokens"] for chunk in chunks if "turboquant" in chunk and not chunk["choices"]]
    check(status == 200 and len(reports) >= 2 and reports == sorted(reports) and reports[0] < reports[-1], f"tokens in the reports: {reports}")
    body |= {"messages": [{"role": "user", "content": FACT}], "timings_per_token": False, "max_tokens": 60}
    _, _, got = request(urllib.parse.urlsplit(url).port, "POST", "/v1/chat/completions", body)
    check(sum('"turboquant"' in event for event in events_of(got)) == 1, "the cache is reported to who did not ask for it")
    return []


@test
def files_that_are_no_text_are_refused(browser, url):
    with Visit(browser, url) as v:
        v.page.set_input_files("#picker", {"name": "x.bin", "mimeType": "application/octet-stream", "buffer": b"\xff\xfe\x00\x01"})
        expect(v.page.locator("#toast")).to_contain_text("x.bin is not a text")
        check(v.attribute_counts(".box .chip") == 0, "the file was taken")
        v.page.set_input_files("#picker", {"name": "a.txt", "mimeType": "text/plain", "buffer": "grün".encode()})
        expect(v.page.locator(".box .chip")).to_have_count(1)
        v.page.get_by_label("Remove a.txt").click()
        expect(v.page.locator(".box .chip")).to_have_count(0)
        return v.errors


@test
def two_codecs_part_where_they_are_marked(browser, url):
    with Visit(browser, url) as v:
        v.set(temperature=1.5, max_tokens=80, kv="tq2")
        v.drop("book.txt", PASSAGE[:2500])
        v.page.fill("#input", "Go on with the story.")
        bodies = []
        v.page.on("request", lambda r: bodies.append(r.post_data_json) if r.url.endswith("completions") else None)
        v.page.click("#compare")
        expect(v.page.locator(".verdict")).to_have_text(re.compile("then they part|part at the first"), timeout=ANSWER_MS)
        expect(v.page.locator(".side .button:enabled")).to_have_count(2, timeout=ANSWER_MS)
        check([b["kv"] for b in bodies] == ["f16", "tq2"] and all(b["temperature"] == 0 for b in bodies), f"what was asked: {bodies}")
        sides = v.page.locator(".side-text")
        texts = [sides.nth(i).text_content() for i in range(2)]
        marks = [v.page.locator(f".side:nth-child({i}) mark").text_content() for i in (1, 2)]
        common = len(os.path.commonprefix(texts))
        check(0 < common < min(map(len, texts)), f"the answers do not part within: {texts}")
        start = len(re.match(r"(?s)(.*\s|)", texts[0][:common]).group())
        check([len(t) - len(m) for t, m in zip(texts, marks)] == [start, start], f"marked from {marks}, but they part at {start}")
        odds = v.page.locator(".side-tokens").all_inner_texts()
        check(all("%" in o for o in odds), f"what was likely where they part: {odds}")
        v.page.locator(".side").nth(1).get_by_text("Keep this answer").click()
        check(v.newest().inner_text().split()[:20] == texts[1].split()[:20], "the kept answer is not the one shown")
        check(v.attribute_counts(".message") == 2, "the question and the answer kept")
        return v.errors


# ---- what stays -----------------------------------------------------------------------------------------------------


@test
def conversations_outlive_a_reload(browser, url):
    with Visit(browser, url) as v:
        v.set(temperature=0, max_tokens=24)
        v.ask(FACT)
        v.page.click("#new")
        second = v.ask("Ada Blake keeps a cat called Pepper. What is the cat called?")
        before = v.page.locator("#log").inner_text()
        v.page.reload()
        expect(v.page.locator(".message")).to_have_count(2)
        check(v.page.locator("#log").inner_text() == before, "the conversation changed by a reload")
        check(v.attribute_counts(".page") > 0, "its cache is forgotten")
        expect(v.page.locator("#list li")).to_have_count(2)
        v.page.locator("#list .entry").nth(1).click()
        expect(v.newest()).to_contain_text("Lisbon")

        with v.page.expect_download() as download:
            v.page.locator("#list li").nth(1).hover()
            v.page.locator("#list li").nth(1).get_by_label(re.compile("Export")).click()
        exported = open(download.value.path()).read()
        check(FACT in exported and "## Answer" in exported, f"the exported conversation: {exported!r}")
        v.page.click("#settings")
        with v.page.expect_download() as download:
            v.page.get_by_text("Export all").click()
        everything = json.loads(open(download.value.path()).read())
        check(len(everything["conversations"]) == 2 and second in json.dumps(everything), "the export of all lacks something")
        v.page.keyboard.press("Escape")

        v.page.locator("#list li").nth(0).hover()
        v.page.locator("#list li").nth(0).get_by_label(re.compile("Delete")).click()
        expect(v.page.locator("#list li")).to_have_count(1)
        v.page.get_by_text("Undo").click()
        expect(v.page.locator("#list li")).to_have_count(2)
        v.page.click("#settings")
        v.page.get_by_text("Delete all conversations").click()
        v.page.get_by_text("Really delete all?").click()
        expect(v.page.locator("#list li")).to_have_count(0)

        # What was exported comes back; what is no export does not.
        v.page.click("#settings")
        for payload, told in ((json.dumps(everything), "2 conversations"), ('{"conversations": [{"id": "../x", "nodes": {}}]}', "cannot be taken in")):
            with v.page.expect_file_chooser() as chooser:
                v.page.get_by_text("Import…").click()
            chooser.value.set_files({"name": "all.json", "mimeType": "application/json", "buffer": payload.encode()})
            expect(v.page.locator("#toast")).to_contain_text(told)
        expect(v.page.locator("#list li")).to_have_count(2)
        return v.errors


@test
def settings_reach_the_request(browser, url):
    with Visit(browser, url) as v:
        v.page.click("#settings")
        for name, value in {"temperature": "0.25", "top_p": "0.9", "top_k": "7", "min_p": "0.05", "seed": "11", "max_tokens": "5"}.items():
            v.page.fill(f"#set-{name}", value)
        v.page.fill("#set-system", "You are a miller.")
        v.page.keyboard.press("Escape")
        v.page.select_option("#codec", "tq4")
        with v.page.expect_request("**/v1/chat/completions") as request:
            v.ask("Who are you?", wait=False)
        body = request.value.post_data_json
        want = {"temperature": 0.25, "top_p": 0.9, "top_k": 7, "min_p": 0.05, "seed": 11, "max_tokens": 5, "kv": "tq4"}
        check({key: body.get(key) for key in want} == want, f"the request: {body}")
        check(body["messages"][0] == {"role": "system", "content": "You are a miller."}, f"messages: {body['messages']}")
        v.answer()
        check("tq4" in v.page.locator(".meta").last.inner_text(), "the server kept another cache than was asked for")
        v.page.click("#settings")
        v.page.get_by_text("Back to the server's defaults").click()
        v.page.keyboard.press("Escape")
        with v.page.expect_request("**/v1/chat/completions") as request:
            v.ask("Who?", wait=False)
        check(not {"temperature", "seed", "max_tokens"} & set(request.value.post_data_json), "defaults are sent all the same")
        v.page.keyboard.press("Escape")
        v.answer()
        return v.errors


# ---- what may go wrong ----------------------------------------------------------------------------------------------


@test
def hostile_text_stays_text(browser, url):
    with Visit(browser, url) as v:
        v.page.route("**/v1/chat/completions", lambda route: route.fulfill(
            content_type="text/event-stream", body=sse(*(said(HOSTILE[i : i + 7]) for i in range(0, len(HOSTILE), 7)), said("", finish_reason="stop"))))
        v.drop("<img src=x onerror=window.pwned=20>.txt", "<script>window.pwned = 21</script>")
        v.ask("<img src=x onerror=window.pwned=22><script>window.pwned = 23</script>")
        v.page.wait_for_timeout(200)
        check(v.page.evaluate("() => window.pwned") is None, "hostile text ran")
        check(v.attribute_counts("#log :is(script, img, iframe, svg:not(.icon), b, style, object, form)") == 0, "hostile text became elements")
        links = v.page.evaluate("() => [...document.querySelectorAll('#log a')].map((a) => a.protocol)")
        check(set(links) <= {"https:", "http:", "mailto:"} and links, f"links: {links}")
        handlers = v.page.evaluate("() => [...document.querySelectorAll('#log *')].flatMap((e) => e.getAttributeNames()).filter((n) => n.startsWith('on'))")
        check(handlers == [], f"attributes: {handlers}")
        for needle in ("<script>window.pwned = 1</script>", "</code></pre><script>", "<svg onload", "[press](javascript:"):
            check(needle in v.newest().inner_text(), f"{needle!r} is not shown as it is")
        check("window.pwned=22" in v.page.title() and "window.pwned=22" in v.page.locator("#list").inner_text(), "the title is not the text")
        return v.errors


@test
def markdown_takes_linear_time(browser, url):
    with Visit(browser, url) as v:
        for piece in ("*a ", "**", "[", "`", "[a](", "_a*", "> " * 20, "- " * 20, "<http:", "~~x", "| a ", "1. a\n  "):
            text = piece * (60000 // len(piece))
            for _ in range(4):  # the clock counts what other programs take, too
                spent = v.page.evaluate("""async (text) => {
                    const { renderMarkdown } = await import("./markdown.js");
                    const started = performance.now();
                    renderMarkdown(document.createElement("div"), text);
                    return performance.now() - started; }""", text)
                if spent < 2500:
                    break
            check(spent < 2500, f"{piece!r}, 60 KB: {spent:.0f} ms")
        return v.errors


@test
def errors_are_told_as_the_server_tells_them(browser, url):
    with Visit(browser, url) as v:
        v.set(temperature=0, max_tokens=100000)
        v.ask(FACT, wait=False)
        expect(v.page.locator(".status.failed")).to_contain_text(re.compile("100,?000|max_tokens"))
        expect(v.page.locator(".status.failed")).to_contain_text("HTTP 400")
        v.set(max_tokens=16)

        busy = {"error": {"message": "The queue is full.", "type": "rate_limit_error", "code": "queue_full"}}
        v.page.route("**/v1/chat/completions", lambda route: route.fulfill(status=429, headers={"retry-after": "3"}, json=busy), times=1)
        v.page.click("#new")
        v.ask(FACT, wait=False)
        expect(v.page.locator(".status")).to_contain_text(re.compile(r"The queue is full\.\s*Trying again in [123] s\."))
        check("Lisbon" in v.answer(), "the second try, seconds later, was not made")

        v.page.route("**/v1/chat/completions", lambda route: route.fulfill(
            content_type="text/event-stream", body=sse(said("Once "), {"error": {"message": "It broke.", "type": "server_error"}})), times=1)
        check(v.ask(FACT).strip() == "Once", "what came before an error is lost")
        expect(v.page.locator(".status.failed")).to_contain_text("It broke.")
        v.page.route("**/v1/chat/completions", lambda route: route.abort(), times=1)
        v.page.get_by_text("Try again").click()
        expect(v.page.locator(".status.failed")).to_contain_text("cannot be reached")
        v.page.get_by_text("Try again").click()
        check("Lisbon" in v.answer(), "trying again by hand does not work")
        # The browser itself reports every failed request on the console.
        return [error for error in v.errors if "Failed to load resource" not in error]


@test
def a_key_is_asked_for(browser, url, tq):
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write("swordfish\n")
        keys.flush()
        with served(tq, "--api-key-file", keys.name) as guarded:
            context = browser.new_context()
            page = context.new_page()
            page.goto(guarded)
            page.get_by_label("API key").fill("perch")
            page.keyboard.press("Enter")
            page.get_by_label("API key").fill("swordfish")
            page.keyboard.press("Enter")
            expect(page.locator("#model")).to_have_text(re.compile("bookworm"))
            page.reload()
            expect(page.locator("#model")).to_have_text(re.compile("bookworm"))
            check(page.locator("dialog").count() == 0, "the key is forgotten by a reload")
            check("swordfish" not in page.evaluate("() => JSON.stringify({...localStorage})"), "the key was stored for good, unasked")
            context.close()
    return []


# ---- for everyone ---------------------------------------------------------------------------------------------------


@test
def the_keyboard_is_enough(browser, url):
    with Visit(browser, url) as v:
        v.set(temperature=0, max_tokens=400)
        keys, focused = v.page.keyboard, lambda: v.page.evaluate("() => document.activeElement.id || document.activeElement.className")
        check(focused() == "input", f"focus at the start: {focused()}")
        keys.press("Escape")
        keys.press("Tab")
        order = []
        for _ in range(40):
            order.append(focused())
            keys.press("Tab")
        order = order[order.index("skip") :]
        stops = [order.index(name) for name in ("new", "compare", "settings", "input", "attach", "codec") if name in order]
        check(len(stops) == 6 and stops == sorted(stops), f"the order of focus: {order}")
        v.page.focus("#new")
        keys.press("/")
        keys.type("n? " + STORY)
        check(v.page.input_value("#input") == "n? " + STORY, "a shortcut took what was typed")
        keys.press("Enter")
        expect(v.newest()).to_have_text(re.compile(r"\w{3}"), timeout=ANSWER_MS)
        keys.press("Escape")
        v.answer()
        check("stopped" in v.page.locator(".meta").inner_text(), "Escape does not stop")
        keys.press("ArrowUp")
        check(focused() == "edit", f"ArrowUp in an empty message: {focused()}")
        keys.press("Escape")
        check("Edit" in v.page.evaluate("() => document.activeElement.title"), "focus after an edit was left")
        keys.press("?")
        expect(v.page.locator("dialog dl.keys")).to_be_visible()
        keys.press("Escape")
        keys.press("s")
        expect(v.page.locator("dialog.settings")).to_be_visible()
        check(v.page.evaluate("() => document.activeElement.closest('dialog') !== null"), "focus is not in the dialog")
        keys.press("Escape")
        expect(v.page.locator("dialog")).to_have_count(0)
        keys.press("p")
        expect(v.page.locator("#panel")).to_be_hidden()
        keys.press("p")
        expect(v.page.locator("#panel")).to_be_visible()
        keys.press("n")
        expect(v.page.locator(".message")).to_have_count(0)
        check(focused() == "input", f"focus in a new conversation: {focused()}")
        unnamed = v.page.evaluate("() => [...document.querySelectorAll('button, input, select, textarea')].filter((e) => !e.hidden && !e.ariaLabel && !e.textContent.trim() && !e.labels?.length && e.tabIndex >= 0).map((e) => e.outerHTML)")
        check(unnamed == [], f"controls without a name: {unnamed}")
        return v.errors


@test
def a_phone_is_wide_enough(browser, url):
    with Visit(browser, url, **PHONE) as v:
        v.set(temperature=0, max_tokens=60)
        check(v.overflow() <= 0, "the empty page scrolls sideways")
        v.page.fill("#input", "A line")
        v.page.press("#input", "Enter")
        check(v.page.input_value("#input") == "A line\n", "Enter on a phone sends")
        wide = "| " + " | ".join(["a long heading"] * 12) + " |\n" + "|--" * 12 + "|\n\n```\n" + "x" * 400 + "\n```\n" + "y" * 400 + " " + FACT
        v.page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=sse(said(wide))), times=1)
        v.page.fill("#input", wide)
        v.page.tap("#send")
        v.answer()
        check(v.overflow() <= 0, f"{v.overflow()} px too wide with wide text")
        v.page.tap("#menu")
        expect(v.page.locator("#new")).to_be_in_viewport()
        check(v.overflow() <= 0, "the list is too wide")
        v.page.tap("#new")
        v.page.fill("#input", FACT)
        v.page.tap("#send")
        check("Lisbon" in v.answer(), "an answer on a phone")
        v.page.tap("#peek")
        expect(v.page.locator(".strip")).to_be_in_viewport()
        check(v.overflow() <= 0, "the cache is too wide")
        v.page.locator("#panel").get_by_label("Close").tap()
        v.page.tap("#settings")
        expect(v.page.locator("#set-seed")).to_be_attached()
        check(v.overflow() <= 0, "settings are too wide")
        v.page.locator("dialog").get_by_label("Close").tap()
        v.page.tap("#compare")
        expect(v.page.locator(".verdict")).to_have_text(re.compile("Word for word|part"), timeout=ANSWER_MS)
        check(v.overflow() <= 0, "comparing is too wide")
        return v.errors


@test
def colours_follow_the_system_or_the_person(browser, url):
    background = "() => getComputedStyle(document.body).backgroundColor"
    with Visit(browser, url, color_scheme="dark") as v:
        dark = v.page.evaluate(background)
        v.page.emulate_media(color_scheme="light")
        light = v.page.evaluate(background)
        check(dark != light, "dark and light look the same")
        v.page.click("#theme")
        check(v.page.evaluate(background) == dark, "the button does not change to dark")
        v.page.reload()
        check(v.page.evaluate(background) == dark, "the choice is forgotten by a reload")
        return v.errors


@test
def the_policy_is_strict(browser, url):
    with urllib.request.urlopen(url + "/") as answer:
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";") if part.strip())
    check(policy.get("default-src") == "'none'" and policy.get("script-src") == "'self'" and policy.get("style-src") == "'self'", f"policy: {policy}")
    check("unsafe" not in str(policy) and "http" not in str(policy), f"policy: {policy}")
    size = sum(path.stat().st_size for path in (ROOT / "tools/server/web").iterdir())
    check(size < 150_000, f"the page has {size} bytes")
    outside = re.compile(r"(?:src|href|import|from|url)\W{1,3}(?:https?:)?//")
    for path in (ROOT / "tools/server/web").iterdir():
        check(not outside.search(path.read_text().replace("http://www.w3.org/2000/svg", "")), f"{path.name} fetches something from elsewhere")
    return []


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tq")
    parser.add_argument("--only", default="")
    parser.add_argument("--url", help="a server that runs already; tests that need one of their own are left out")
    args = parser.parse_args()

    def run(url, browser):
        for function in TESTS:
            if args.only not in function.__name__:
                continue
            wants_tq = "tq" in function.__code__.co_varnames[: function.__code__.co_argcount]
            if wants_tq and args.url:
                continue
            started, failed = time.time(), tally.failed
            try:
                errors = function(browser, url, args.tq) if wants_tq else function(browser, url)
                check(not errors, f"{function.__name__}: on the console: {errors}")
            except Exception:
                check(False, f"{function.__name__}: {traceback.format_exc(limit=-3)}")
            print(f"{'ok  ' if tally.failed == failed else 'FAIL'} {function.__name__} ({time.time() - started:.1f} s)", flush=True)

    with chromium() as browser:
        if args.url:
            run(args.url, browser)
        else:
            with served(args.tq) as url:
                run(url, browser)
    return finish()


if __name__ == "__main__":
    raise SystemExit(main())
