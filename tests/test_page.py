"""The page as a person uses it: a real Chromium, the real server, the shipped model."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Visit, chromium
from serving import CLIP, PICTURE, SOUND, Live, running

import mio
from mio.media import read_audio, read_image, read_video
from mio.pipeline import Model
from mio.serve.app import Options
from mio.serve.guard import Rules
from mio.serve.protocol import from_base64
from mio.serve.scheduler import Load

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FILES = (
    {"name": "grey.png", "mimeType": "image/png", "buffer": PICTURE},
    {"name": "tone.wav", "mimeType": "audio/wav", "buffer": SOUND},
    {"name": "dark.mp4", "mimeType": "video/mp4", "buffer": CLIP},
)
ALL = "text image audio video"  # an order with every kind
ASKED = "Draw a red heart in twemoji style."


@pytest.fixture(scope="module")
def model() -> Model:
    return mio.load()


@pytest.fixture(scope="module")
def live(model: Model) -> Iterator[Live]:
    with running(model) as live:
        yield live


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser: Any, live: Live) -> Iterator[Callable[..., Visit]]:
    """Opens the page; when the test ends, nothing may have gone wrong in the console."""
    visits: list[Visit] = []

    def open(**options: Any) -> Visit:
        visits.append(Visit(browser, live.base, **options))
        return visits[-1]

    yield open
    for each in visits:
        assert each.complaints == []
        each.context.close()


@pytest.fixture(scope="module")
def full(browser: Any, live: Live) -> Iterator[Visit]:
    """A conversation whose answer holds every kind; tests that use it leave it as it is."""
    visit = Visit(browser, live.base)
    visit.settings(order=ALL, seed="2", tokens="400")
    visit.ask(ASKED)
    yield visit
    assert visit.complaints == []
    visit.context.close()


def shown(visit: Visit) -> list[str]:
    """Kinds of the parts of the newest answer, as they stand on the page."""
    script = "nodes => nodes.map(n => n.classList.contains('prose') ? 'text' : n.classList[1])"
    return list(visit.page.eval_on_selector_all("article.assistant:last-child .parts > *", script))


def saved(visit: Visit, button: Any) -> tuple[str, bytes]:
    with visit.page.expect_download() as download:
        button.click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


# ------------------------------------------------------------------------------------------------- answers


def test_a_newcomer_s_first_click_draws_a_picture_that_can_be_kept(visit: Callable[..., Visit]) -> None:
    person = visit()
    person.picture("welcome")
    assert person.page.locator(".starter").count() == 6
    person.page.click(".starter.image")
    person.answered()
    assert shown(person) == ["image"]
    assert person.page.eval_on_selector("article.assistant img", "img => img.naturalWidth") > 0
    name, data = saved(person, person.page.locator("article.assistant figcaption button"))
    assert name.endswith(".png") and read_image(data).pixels.shape[2] == 3


def test_parts_stand_in_the_order_in_which_they_came(full: Visit) -> None:
    assert shown(full) == ALL.split()
    full.picture("answer")


def test_every_generated_medium_is_labelled_and_can_be_downloaded_whole(full: Visit) -> None:
    figures = full.page.locator("article.assistant figure")
    assert figures.count() == 3
    assert figures.locator(".badge", has_text="AI-generated").count() == 3
    assert full.page.locator("article.assistant .tag", has_text="AI").is_visible()
    files = [saved(full, figures.nth(n).get_by_label("Download")) for n in range(3)]
    assert [Path(name).suffix for name, _ in files] == [".png", ".wav", ".mp4"]
    readers: list[Callable[[bytes], Any]] = [read_image, read_audio, read_video]
    for read, (_, data) in zip(readers, files, strict=True):
        read(data)
        assert b"trainedAlgorithmicMedia" in data


def test_sounds_play_and_can_be_sought_by_keyboard(full: Visit) -> None:
    player = full.page.locator(".player")
    player.get_by_role("button").click()
    full.until("document.querySelector('audio').currentTime > 0.1")
    full.until("document.querySelectorAll('.wave .done').length > 0")
    seek = player.get_by_role("slider")
    seek.press("Home")
    seek.press("PageUp")
    assert " of 0:0" in seek.get_attribute("aria-valuetext")
    full.until("document.querySelector('audio').paused")


def test_clips_play_by_themselves_and_stop_at_a_click(full: Visit) -> None:
    full.until("document.querySelector('figure.video video').readyState >= 2")
    full.page.get_by_role("button", name=re.compile("^Pause AI-generated clip")).click()
    assert full.page.eval_on_selector("figure.video video", "video => video.paused")
    full.page.get_by_role("button", name=re.compile("^Play AI-generated clip")).click()


def test_the_gallery_and_the_viewer_show_all_media_one_after_the_other(full: Visit) -> None:
    full.page.click("#gallery-open")
    assert full.page.locator("#gallery-items .tile").count() == 3
    full.picture("gallery")
    assert full.faults() == []
    full.page.locator("#gallery-items .tile").first.click()
    seen = []
    for _ in range(4):
        seen.append(
            (full.page.inner_text("#viewer-count"), full.page.locator("#viewer-stage > *").evaluate("n => n.tagName"))
        )
        full.page.locator("#viewer-save").press("ArrowRight")
    assert seen == [("1 of 3", "IMG"), ("2 of 3", "DIV"), ("3 of 3", "VIDEO"), ("1 of 3", "IMG")]
    assert saved(full, full.page.locator("#viewer-save"))[0].endswith(".wav")
    assert full.faults() == []
    full.picture("viewer")
    full.page.keyboard.press("Escape")
    full.page.keyboard.press("Escape")
    assert full.page.locator("dialog[open]").count() == 0


def test_stop_keeps_what_has_come_and_frees_the_server(visit: Callable[..., Visit], live: Live) -> None:
    person = visit()
    person.settings(order="(image text){8}", tokens="400")
    person.page.fill("#prompt", "Tell an illustrated story: The lost goat")
    person.page.press("#prompt", "Enter")
    person.page.wait_for_selector("article.assistant figure")
    person.page.click("#stop")
    person.answered()
    live.until(lambda: live.served.service.scheduler.idle, 10)
    assert person.page.locator("article.assistant .note", has_text="Stopped").is_visible()
    assert 0 < person.page.locator("article.assistant figure").count() < 8
    assert person.page.locator("#send").is_visible()


def test_answer_again_asks_the_same_with_other_chances(visit: Callable[..., Visit]) -> None:
    person = visit()
    first = person.ask("Say two.")
    with person.page.expect_request("**/chat/completions") as again:
        person.page.click("article.assistant [aria-label='Answer again']")
    person.answered()
    second = again.value.post_data_json
    assert first.pop("seed") != second.pop("seed")
    assert first == second
    assert person.page.locator("article.assistant").count() == 1


def test_an_edited_question_replaces_what_came_after_it(visit: Callable[..., Visit]) -> None:
    person = visit()
    person.ask("What is red?")
    person.ask("What is blue?")
    person.page.locator("article.user").first.hover()
    person.page.locator("article.user [aria-label='Edit and send again']").first.click()
    assert person.page.input_value("#prompt") == "What is red?"
    body = person.ask("What is green?")
    assert [m["content"][0]["text"] for m in body["messages"]] == ["What is green?"]
    assert person.page.locator("article").count() == 2


def test_an_answer_goes_back_to_the_server_in_its_order(full: Visit) -> None:
    """The next question carries the pictures, sounds and clips, and the server takes them."""
    body = full.page.evaluate(
        """async () => {
          const { requestOf } = await import('/api.js');
          const { Store } = await import('/store.js');
          const [chat] = await (await Store.open()).all();
          const values = JSON.parse(localStorage['mio.settings']);
          const next = { role: 'user', parts: [{ kind: 'text', text: 'What is red?' }] };
          const body = await requestOf([...chat.messages, next],
            { temperature: null, voice: '', system: '', memory: true, ...values, out: ['text'], order: '', tokens: 5 });
          body.stream = false; delete body.stream_options;
          const reply = await fetch('/v1/chat/completions', { method: 'POST', body: JSON.stringify(body),
            headers: { 'content-type': 'application/json' } });
          return { sent: body.messages[1], status: reply.status, reply: await reply.json() };
        }"""
    )
    assert [part["type"] for part in body["sent"]["parts"]] == ALL.split()
    assert body["status"] == 200
    details = body["reply"]["usage"]["prompt_tokens_details"]
    assert details["image_tokens"] >= 5 * 32 and details["audio_tokens"] > 0  # a picture, and four frames


# ------------------------------------------------------------------------------------------------ questions


def test_files_come_by_button_drop_and_paste_and_arrive_as_they_are(visit: Callable[..., Visit]) -> None:
    person = visit()
    person.page.set_input_files("#files", [FILES[0]])
    for event, file in zip(("drop", "paste"), FILES[1:], strict=True):
        person.page.evaluate(
            """([event, { name, type, bytes }]) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], name, { type }));
              const sent = event === 'drop'
                ? new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })
                : new ClipboardEvent('paste', { clipboardData: data, bubbles: true });
              document.body.dispatchEvent(sent);
            }""",
            [event, {"name": file["name"], "type": file["mimeType"], "bytes": list(file["buffer"])}],
        )
    person.until("document.querySelectorAll('#tray li').length === 3")
    person.picture("attached")
    assert person.faults() == []
    body = person.ask("What is this?")
    parts = body["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "input_audio", "video_url", "text"]
    assert from_base64(parts[0]["image_url"]["url"].partition(",")[2], "") == PICTURE
    assert from_base64(parts[1]["input_audio"]["data"], "") == SOUND and parts[1]["input_audio"]["format"] == "wav"
    assert from_base64(parts[2]["video_url"]["url"].partition(",")[2], "") == CLIP
    assert person.page.locator("article.user figure").count() == 3
    assert person.page.locator("article .trouble").count() == 0


def test_attachments_can_be_removed_and_other_files_are_refused_in_words(visit: Callable[..., Visit]) -> None:
    person = visit()
    person.page.set_input_files("#files", [FILES[0], {"name": "x.zip", "mimeType": "application/zip", "buffer": b"PK"}])
    person.page.wait_for_selector(".toast:has-text('x.zip is neither a picture')")
    person.page.click("[aria-label='Remove grey.png']")
    assert person.page.locator("#tray li").count() == 0


def test_the_microphone_records_what_it_hears(visit: Callable[..., Visit]) -> None:
    person = visit()
    person.page.click(".starter.mic")
    person.until("document.getElementById('recorded').textContent === '0:01'")
    person.picture("recording")
    person.page.click("#record-keep")
    person.page.wait_for_selector("#tray li.audio")
    body = person.ask("What is said?")
    sent = body["messages"][0]["content"][0]
    sound = read_audio(from_base64(sent["input_audio"]["data"], ""))
    assert sent["input_audio"]["format"] == "wav" and sound.rate == 16_000
    assert 0.5 < sound.seconds < 30 and np.abs(sound.samples).max() > 0.05


def test_a_drawing_becomes_a_picture_that_the_model_sees(visit: Callable[..., Visit]) -> None:
    person = visit()
    person.page.click(".starter.draw")
    box = person.page.locator("#pad").bounding_box()
    middle = box["x"] + box["width"] / 2
    person.page.mouse.move(middle, box["y"] + 60)
    person.page.mouse.down()
    person.page.mouse.move(middle, box["y"] + box["height"] - 60, steps=5)
    person.page.mouse.up()
    person.page.click("text=Use drawing")
    person.page.wait_for_selector("#tray li.image")
    parts = person.ask("What is this?")["messages"][0]["content"]
    pixels = read_image(from_base64(parts[0]["image_url"]["url"].partition(",")[2], "")).pixels
    assert pixels.shape == (512, 512, 3) and pixels[256, 256].max() < 40 and pixels[256, 100].min() == 255
    assert person.page.locator("article.assistant .prose").count() == 1


def test_kinds_of_answer_and_voice_are_asked_for(visit: Callable[..., Visit]) -> None:
    person = visit()
    kind = "[data-kind={}]".format
    assert not person.page.locator("#voice-quick").is_visible()
    person.page.click(kind("text"))
    assert person.page.get_attribute(kind("text"), "aria-pressed") == "true"  # one stays on
    person.page.click(kind("audio"))
    person.page.click(kind("text"))
    person.page.select_option("#voice-quick", "theo")
    body = person.ask("Say three.")
    assert body["modalities"] == ["audio"] and body["audio"] == {"format": "pcm16", "voice": "theo"}
    assert shown(person) == ["audio"]


# ----------------------------------------------------------------------------------------- history, settings


def test_conversations_outlive_the_window_and_can_be_found_renamed_and_deleted(visit: Callable[..., Visit]) -> None:
    person = visit()
    person.page.set_input_files("#files", [FILES[0]])
    person.ask("What is red?")
    person.page.click("#new")
    person.ask("What is blue?")
    person.page.locator(".chat", has_text="What is red?").click()
    person.reload()  # the address names the conversation
    assert person.page.locator("article.user img").evaluate("async img => (await img.decode(), img.naturalWidth)") == 30
    assert person.page.inner_text("#title") == "What is red?"
    person.page.fill("#search", "blue")
    person.until("document.querySelectorAll('.chat').length === 1")
    person.page.fill("#search", "")
    row = person.page.locator("#chats li", has_text="What is blue?")
    row.hover()
    row.get_by_label("Rename").click()
    person.page.fill("#chats input", "Sky")
    person.page.press("#chats input", "Enter")
    row = person.page.locator("#chats li", has_text="Sky")
    row.hover()
    row.get_by_label("Delete").click()
    person.until("document.querySelectorAll('.chat').length === 1")
    person.page.click(".toast >> text=Undo")
    person.until("document.querySelectorAll('.chat').length === 2")


def test_a_file_of_conversations_brings_them_back(visit: Callable[..., Visit], tmp_path: Path) -> None:
    person = visit()
    person.page.set_input_files("#files", [FILES[0]])
    person.ask("What is red?")
    person.page.click("#settings-open")
    _, data = saved(person, person.page.locator("#export"))
    person.page.click("#clear")
    person.page.click("#sure >> text=Delete all >> nth=-1")
    person.until("document.querySelectorAll('.chat').length === 0")
    path = tmp_path / "chats.json"
    path.write_bytes(data)
    person.page.set_input_files("#import-file", path)
    person.until("document.querySelectorAll('.chat').length === 1")
    person.page.click("#settings [data-close]")
    person.page.click(".chat")
    assert person.page.locator("article.user img").evaluate("async img => (await img.decode(), img.naturalWidth)") == 30
    kept = json.loads(data)["chats"][0]["messages"][0]["parts"][0]
    assert from_base64(kept["data"].partition(",")[2], "") == PICTURE


def test_without_memory_only_the_question_is_sent(visit: Callable[..., Visit]) -> None:
    person = visit()
    person.ask("What is red?")
    assert len(person.ask("What is blue?")["messages"]) == 3
    person.page.click("#settings-open")
    person.page.uncheck("[name=memory]")
    person.page.click("#settings [data-close]")
    assert len(person.ask("What is green?")["messages"]) == 1


# --------------------------------------------------------------------------------- looks, keys, accessibility


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 860), (390, 844)])
def test_axe_finds_nothing_serious(full: Visit, scheme: str, size: tuple[int, int]) -> None:
    full.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    full.page.set_viewport_size({"width": size[0], "height": size[1]})
    full.page.wait_for_timeout(300)
    full.picture(f"answer-{scheme}-{size[0]}")
    assert full.faults() == []
    assert full.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    full.page.click("#settings-open")
    assert full.faults() == []
    full.picture(f"settings-{scheme}-{size[0]}")
    full.page.keyboard.press("Escape")
    full.page.emulate_media(color_scheme="light", reduced_motion="no-preference")
    full.page.set_viewport_size({"width": 1280, "height": 860})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_empty_page_has_no_faults_and_follows_the_system_s_scheme(visit: Callable[..., Visit], scheme: str) -> None:
    person = visit(color_scheme=scheme)
    red = "Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    assert (person.page.evaluate(red) > 128) == (scheme == "light")
    assert person.faults() == []
    other = {"light": "dark", "dark": "light"}[scheme]
    person.page.click("#settings-open")
    person.page.check(f"[name=theme][value={other}]")
    assert (person.page.evaluate(red) > 128) == (other == "light")
    person.reload()
    assert (person.page.evaluate(red) > 128) == (other == "light")


def test_on_a_phone_everything_is_within_reach(visit: Callable[..., Visit]) -> None:
    person = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    person.picture("phone-welcome")
    assert person.page.evaluate("document.documentElement.scrollWidth") == 390
    for id in ("attach", "record", "draw", "send", "menu", "settings-open"):
        box = person.page.locator(f"#{id}").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and min(box["width"], box["height"]) >= 36
    person.page.tap("#menu")
    person.until("document.getElementById('side').getBoundingClientRect().x === 0")
    assert person.faults() == []
    person.picture("phone-conversations")
    person.page.keyboard.press("Escape")
    assert person.page.evaluate("document.getElementById('side').inert")


def test_everything_can_be_done_by_keyboard(visit: Callable[..., Visit]) -> None:
    person = visit()
    page, focused = person.page, "document.activeElement.id"
    assert page.evaluate(focused) == "prompt"
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    assert page.input_value("#prompt") == "one\ntwo"
    page.keyboard.press("Enter")
    person.answered()
    page.keyboard.press("Control+k")
    assert page.evaluate(focused) == "search"
    page.keyboard.press("Control+Shift+O")
    assert page.evaluate(focused) == "prompt" and page.locator("article").count() == 0
    page.keyboard.press("Control+,")
    assert page.locator("#settings").is_visible()
    page.keyboard.press("Escape")
    person.settings(order="(image text){8}")
    page.fill("#prompt", "Tell an illustrated story: The lost goat")
    page.press("#prompt", "Enter")
    page.wait_for_selector("#stop:visible")
    page.keyboard.press("Escape")
    person.answered()
    assert page.locator("article.assistant .note", has_text="Stopped").is_visible()


def test_screen_readers_are_told_what_came(full: Visit) -> None:
    assert full.page.get_by_role("log", name="Messages").count() == 1
    assert full.page.inner_text("#status") == "Answer complete: text, 1 picture, 1 recording and 1 clip."
    tree = full.page.locator("main").aria_snapshot()
    assert f'button "Open AI-generated picture: {ASKED}"' in tree
    assert f'button "Play AI-generated recording: {ASKED}"' in tree


# -------------------------------------------------------------------------------------------------- trouble


@contextmanager
def taken(live: Live, count: int) -> Iterator[None]:
    """So many places of the server are taken by long answers."""
    story: Any = [{"role": "user", "content": "Tell an illustrated story: The lost goat"}]
    order = {"out": "(image text){8}"}
    with live.client() as client, ExitStack() as streams:
        for _ in range(count):
            streams.enter_context(
                client.chat.completions.create(model="", messages=story, stream=True, extra_body=order)
            )
        yield


def test_a_busy_server_is_asked_again_after_the_time_it_names(browser: Any, model: Model) -> None:
    with running(model, Options(load=Load(1, 1))) as live:
        person = Visit(browser, live.base)
        with taken(live, 2):
            person.page.fill("#prompt", "What is red?")
            person.page.press("#prompt", "Enter")
            notice = person.page.wait_for_selector(".trouble.calm")
            assert re.match(r"The server is busy\. Trying again in \d+ s\.", notice.inner_text())
            person.picture("busy")
        live.until(lambda: live.served.service.scheduler.idle, 30)
        if person.page.locator("text=Try now").is_visible():
            person.page.click("text=Try now")
        person.answered()
        assert person.page.locator("article.assistant .prose").count() == 1
        assert person.page.locator(".trouble").count() == 0
        person.context.close()


def test_offline_is_said_and_the_question_can_be_asked_again(browser: Any, live: Live) -> None:
    person = Visit(browser, live.base)
    person.context.set_offline(True)
    person.page.fill("#prompt", "What is red?")
    person.page.press("#prompt", "Enter")
    person.page.wait_for_selector(".trouble:has-text('The server cannot be reached.')")
    assert person.faults() == []
    person.picture("offline")
    person.context.set_offline(False)
    person.page.click(".trouble >> text=Try again")
    person.page.wait_for_selector("article.assistant .prose")
    person.answered()
    assert person.page.locator("article").count() == 2
    person.context.close()


def test_a_missing_key_is_asked_for_and_kept_for_this_window_only(browser: Any, model: Model) -> None:
    with running(model, Options(Rules(keys=frozenset({"open-sesame"})))) as live:
        person = Visit(browser, live.base)
        person.page.click("#banner >> text=Enter the key")
        person.page.fill("#key", "open-sesame")
        person.page.press("#key", "Tab")
        person.page.wait_for_selector("#banner", state="hidden")
        person.page.click("#settings [data-close]")
        person.ask("What is red?")
        assert person.page.locator("article.assistant .prose").count() == 1
        assert "open-sesame" not in person.page.evaluate("JSON.stringify(localStorage)")
        person.context.close()


def test_what_the_server_refuses_is_told_in_its_words(browser: Any, live: Live) -> None:
    person = Visit(browser, live.base)
    person.settings(order="image{")
    person.ask("Draw a fox.")
    trouble = person.page.inner_text(".trouble")
    assert "pattern" in trouble.lower() or "image{" in trouble
    assert person.page.locator(".trouble >> text=New chat").is_visible()
    person.context.close()


# ------------------------------------------------------------------------------------------- pure functions


def test_a_stream_reads_the_same_wherever_it_is_cut(full: Visit) -> None:
    texts = full.page.evaluate(
        """async () => {
          const { events, Answer } = await import('/stream.js');
          const choices = [{ delta: { content: 'Grüße, ' } }, { delta: { content: '🦊' } }, { finish_reason: 'stop' }];
          const lines = choices.map((choice) => `data: ${JSON.stringify({ choices: [choice] })}\\r\\n\\n`).join('');
          const bytes = new TextEncoder().encode(`: keep-alive\\n\\n${lines}data: [DONE]\\n\\n`);
          const read = async (at) => {
            const answer = new Answer();
            const chunks = [bytes.slice(0, at), bytes.slice(at)];
            const start = (out) => { chunks.forEach((chunk) => out.enqueue(chunk)); out.close(); };
            for await (const event of events(new ReadableStream({ start }))) answer.take(event);
            return answer.parts.map((part) => part.text).join('|') + answer.finish;
          };
          return [...new Set(await Promise.all([...bytes.keys()].map(read)))];
        }"""
    )
    assert texts == ["Grüße, 🦊stop"]


def test_a_stream_that_breaks_off_or_fails_says_so(full: Visit) -> None:
    found = full.page.evaluate(
        """async () => {
          const { events, Answer } = await import('/stream.js');
          const read = async (text) => {
            const answer = new Answer();
            try { for await (const event of events(new Blob([text]).stream())) answer.take(event); }
            catch (error) { return [error.message, answer.parts.length]; }
          };
          const said = 'data: {"choices":[{"delta":{"content":"a"}}]}\\n\\n';
          const broken = 'data: {"error":{"message":"Broken.","code":"x"}}\\n\\ndata: [DONE]\\n\\n';
          return [await read(said), await read(said + broken)];
        }"""
    )
    assert found == [["The connection was cut before the answer ended.", 1], ["Broken.", 1]]


def test_nothing_a_model_says_becomes_markup_or_an_address_that_runs(full: Visit) -> None:
    says = (
        "<img src=x onerror=alert(1)> <script>alert(1)</script> [a](javascript:alert(1)) ![b](https://elsewhere.test/c.png)\n"
        "# Title\n- one\n- **two**\n1. three\n> said\n```\n<b>code</b>\n```\nlast `x`\n[ok](https://example.org/)"
    )
    tags, links = full.page.evaluate(
        """async (text) => {
          const { markdown } = await import('/markdown.js');
          const box = document.createElement('div');
          box.append(...markdown(text));
          const links = [...box.querySelectorAll('a')].map((a) => a.href);
          return [[...box.querySelectorAll('*')].map((node) => node.tagName), links];
        }""",
        says,
    )
    assert set(tags) == {"P", "H3", "UL", "OL", "LI", "STRONG", "BLOCKQUOTE", "PRE", "CODE", "A", "BR"}
    assert links == ["https://elsewhere.test/c.png", "https://example.org/"]


def test_media_of_types_that_could_run_are_never_shown(full: Visit) -> None:
    urls = [
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:text/html;base64,PGI+",
        "https://elsewhere.test/a.png",
        "data:video/mp4;base64,AA==",
    ]
    script = "urls => import('/media.js').then(({ blobOf }) => urls.map((url) => blobOf(url, 'image') !== null))"
    assert full.page.evaluate(script, urls) == [False] * 4
    png = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    assert full.page.evaluate(script, [png]) == [True]
