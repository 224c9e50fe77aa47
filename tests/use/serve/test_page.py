"""The page in a real browser: an image chosen, a question typed, the bars of the subspaces read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import handmade
from use.serve.browser import Browser, found

pytestmark = pytest.mark.skipif(
    not found(), reason="no Chromium here (Debian: apt install chromium)"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


def test_a_question_is_answered_and_the_subspaces_are_shown(
    real, made, browser: Browser, picture: Path, tmp_path: Path
) -> None:
    browser.size(1280, 820)
    browser.go(real.url)
    browser.until("document.title === 'first: ask about an image'")
    browser.value("document.getElementById('ask').click()")
    assert browser.value("document.getElementById('problem').textContent") == (
        "Choose an image first."
    )
    browser.choose("#image", picture)
    browser.until("!document.getElementById('shown').hidden")
    browser.value("document.getElementById('question').focus()")
    browser.type(handmade.PROMPTS[0])
    browser.press("Enter")
    browser.until("!document.getElementById('full').hidden")
    want = made.answer(picture, handmade.PROMPTS[0])
    assert browser.value("document.getElementById('said').textContent") == want.text
    rows = "[...document.querySelectorAll('#bars li')]"
    names = browser.value(f"{rows}.map(row => row.querySelector('.name').textContent)")
    assert names == ["0IconQA", "1FigureQA"]
    browser.until(f"{rows}[0].querySelector('.track span').style.width !== ''")
    widths = browser.value(
        f"{rows}.map(row => parseFloat(row.querySelector('.track span').style.width))"
    )
    assert widths == pytest.approx([100 * want.activation[k] for k in "01"], abs=0.01)
    assert browser.value("document.getElementById('problem').hidden")
    assert browser.console == []  # no script failed, and the policy stopped nothing


def test_the_page_fits_a_phone_and_is_reached_by_keyboard(parrot, browser: Browser) -> None:
    browser.size(360, 740, dark=True)
    browser.go(parrot.url)
    browser.until("document.title.startsWith('parrot')")
    assert browser.value("document.documentElement.scrollWidth") == 360
    dark = browser.value("getComputedStyle(document.body).backgroundColor")
    browser.size(360, 740)
    assert browser.value("getComputedStyle(document.body).backgroundColor") != dark
    reached = []
    for _ in range(3):
        browser.press("Tab")
        reached.append(browser.value("document.activeElement.id"))
    assert reached == ["image", "question", "ask"]
    fields = "[...document.querySelectorAll('input, textarea')]"
    assert browser.value(
        f"{fields}.every(one => one.labels.length || one.getAttribute('aria-labelledby'))"
    )


def test_hostile_text_stays_text(parrot, browser: Browser, picture: Path) -> None:
    browser.size(1280, 820)
    browser.go(parrot.url)
    browser.until("document.title.startsWith('parrot')")
    browser.choose("#image", picture)
    browser.until("!document.getElementById('shown').hidden")
    browser.value("document.getElementById('question').focus()")
    text = "<img src=x onerror=alert(1)><b>bold</b>"
    browser.type(text)
    browser.press("Enter")
    browser.until("!document.getElementById('full').hidden")
    assert browser.value("document.getElementById('said').textContent") == text.upper()
    assert browser.value("document.querySelectorAll('#result img, #result b').length") == 0


def test_a_key_is_asked_for_on_the_page(stand_in, browser: Browser, picture: Path) -> None:
    with stand_in(key="sesame") as server:
        browser.go(server.url)
        browser.until("!document.getElementById('key-part').hidden")
        browser.value("document.getElementById('key').focus()")
        browser.type("sesame")
        browser.choose("#image", picture)
        browser.until("!document.getElementById('shown').hidden")
        browser.value("document.getElementById('question').focus()")
        browser.type("open")
        browser.press("Enter")
        browser.until("document.getElementById('said').textContent === 'OPEN'")


def test_a_server_that_has_gone_is_said_to_have(stand_in, browser: Browser, picture: Path) -> None:
    with stand_in() as server:
        browser.go(server.url)
        browser.until("document.title.startsWith('parrot')")
        browser.choose("#image", picture)
        browser.until("!document.getElementById('shown').hidden")
    browser.value("document.getElementById('question').focus()")
    browser.type("still there?")
    browser.press("Enter")
    browser.until("!document.getElementById('problem').hidden")
    assert "does not answer" in browser.value("document.getElementById('problem').textContent")
