"""What is printed: numbers are whole at every width, and no text reaches a terminal as a command."""

import io
import re

import pytest

from commandline import call
from fcit.cli.screen import show, show_table
from fcit.watch import Terminal, printable

ROWS = [
    ("disco with a long name [serve]", "IconQA, ImageNet-R", "69.62 ± 0.13", "1,234,567.8", "98.67"),
    None,
    ("finetune", "", "39.81 ± 10.40", "7.1", "100.00"),
]  # fmt: skip
EVIL = "a\x1b]0;owned\x07 \x9b31m \u202eb \ud800 c\r"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_numbers_and_words_are_whole_and_lines_fit(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout", screen := Screen())
    show_table(ROWS, "method", "tasks", numbers=("Last", "samples", "chance"))
    shown = re.sub(r"\x1b\[\d*m", "", screen.getvalue())
    assert max(map(len, shown.splitlines())) <= width
    for row in filter(None, ROWS):
        assert all(re.search(rf"│ +{re.escape(number)} │", shown) for number in row[2:])
        assert all(word in shown for text in row[:2] for word in text.split())
    assert "…" not in shown


def test_a_pipe_gets_one_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    show_table([("x" * 300, "1")], "text", numbers=["n"])
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_what_a_terminal_would_obey_is_shown_as_json_writes_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert printable("Größe\t«naïve»\n日本 \u200d\u3000👍") == "Größe\t«naïve»\n日本 \u200d\u3000👍"
    safe = r"a\u001b]0;owned\u0007 \u009b31m \u202eb \ud800 c\u000d"
    assert printable(EVIL) == safe
    assert printable("\U000e0041") == r"\udb40\udc41"
    show(EVIL)
    show(EVIL, err=True)
    show_table([(EVIL, "1")], EVIL, numbers=["n"])
    watch = Terminal()
    watch.say(EVIL)
    with watch.bar(EVIL, 2) as step:
        step(1, EVIL)
    shown = capsys.readouterr()
    assert (shown.out.count(safe), shown.err.count(safe)) == (3, 4)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown.out + shown.err)


def test_an_error_about_a_name_of_escapes_is_one_line_without_them() -> None:
    done = call("run", "gone\x1b[31m\nfcit: all is well")
    assert done.returncode == 2
    assert done.stderr.startswith("fcit: gone\\u001b[31m fcit: all is well: no such recipe")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("width", "shown"), [(40, 1), (60, 3), (80, 5), (120, 5)])
def test_a_bar_shows_as_many_parts_as_fit(
    width: int, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert len(Terminal().progress.columns) == shown
