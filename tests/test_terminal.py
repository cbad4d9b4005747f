"""What `zoetrope generate --preview` shows on a terminal: the binary runs under a pseudo terminal that, as some do, answers no question."""

import os
import re
import select
import struct
import sys
import time

import pytest

from serving import BINARY, clean_environment

if sys.platform == "win32":
    pytest.skip("there are no pseudo terminals", allow_module_level=True)

import fcntl  # noqa: E402
import pty  # noqa: E402
import termios  # noqa: E402

SECONDS_MAX = 120
HALF = "\u2584"
# The colours of the lower half, the upper half, and the letter.
LETTER = re.compile(r"\x1b\[38;2;(\d+);(\d+);(\d+)m\x1b\[48;2;(\d+);(\d+);(\d+)m" + HALF)


def shown(folder, columns=80, **variables):
    """What comes out of drawing a house in three steps on a terminal so many letters wide."""
    environment = {name: value for name, value in clean_environment().items() if not name.startswith(("TERM", "LC_TERMINAL", "COLORTERM", "KITTY", "KONSOLE"))}
    command = [BINARY, "generate", "a red house in the middle, rolling hills, at noon", "--model", "demo", "--size", "192x192", "--seed", "3",
               "--steps", "3", "--preview", "-o", str(folder / "house.png")]
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execvpe(command[0], command, environment | variables)
    out, until = b"", time.monotonic() + SECONDS_MAX
    try:
        while select.select([terminal], [], [], max(0, until - time.monotonic()))[0]:
            try:
                read = os.read(terminal, 1 << 16)
            except OSError:  # its other side is closed
                break
            if not read:
                break
            out += read
        else:
            pytest.fail(f"nothing more came in {SECONDS_MAX} s after {out[-200:]}")
    finally:
        os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0, out
    return out.decode()


def rows(out):
    """The colours of the previews' lines, each the upper and the lower half's."""
    found = [[tuple(map(int, letter)) for letter in LETTER.findall(line)] for line in out.splitlines()]
    return [row for row in found if row]


def test_a_preview_of_each_step_but_the_last_is_drawn_in_halves_of_letters(tmp_path):
    out = shown(tmp_path, TERM="xterm-256color", COLORTERM="truecolor")
    lines = rows(out)
    assert len(lines) == 2 * 12 and {len(line) for line in lines} == {24}
    for preview in (lines[:12], lines[12:]):
        sky, land = preview[0][12][3:], preview[-1][12][:3]
        assert sky[2] > sky[0] and land[1] > land[2], f"blue above and green below: {sky} {land}"
    # No terminal was asked anything: what it does not understand it would show, or wait for forever.
    assert "\x1b_G" not in out and "\x1b[5n" not in out and "\x1b[c" not in out


def test_a_preview_is_no_wider_than_the_terminal(tmp_path):
    lines = rows(shown(tmp_path, columns=20, TERM="xterm-256color", COLORTERM="truecolor"))
    assert lines and {len(line) for line in lines} == {19}


def test_a_terminal_that_shows_pictures_gets_them_and_a_plain_one_nothing(tmp_path):
    assert shown(tmp_path, TERM="xterm-256color", TERM_PROGRAM="iTerm.app").count("\x1b]1337;File=") == 3
    kitty = shown(tmp_path, TERM="xterm-kitty")
    assert kitty.count("\x1b_Gf=100,a=T,q=2,") == 3 and "a=q" not in kitty and "\x1b[c" not in kitty
    plain = shown(tmp_path, TERM="dumb")
    assert HALF not in plain and "house.png" in plain
