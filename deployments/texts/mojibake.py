"""Broken encodings undone as ftfy does it, in a bounded number of rounds.

`ftfy.fix_text` repeats itself until nothing changes, and a text can be written of which each round
undoes one character: 8,192 characters took 17 seconds, in the thread that reads everybody's texts.
Ordinary texts take two or three rounds. What needs no repair, most texts and blank lines, is told
by a regular expression here.
"""

import re
from collections.abc import Callable

MOST_ROUNDS = 16

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
# ASCII without an ampersand, which may begin a character reference, and control characters, which
# are removed, and of which ESC may begin a terminal's. Nothing else of ASCII is changed, but that
# the tabs and line breaks here may be others then.
_WHOLE = re.compile(r"[\t\n\f\r\x20-\x25\x27-\x7e]*")


def repairer() -> Callable[[str], str]:
    """`ftfy.fix_text`, but for other whitespace and after `MOST_ROUNDS` rounds.

    Raises ImportError if ftfy is not installed, or has changed inside.
    """
    import ftfy
    from ftfy import _fix_encoding_one_step_and_explain as one_step

    config = ftfy.TextFixerConfig(explain=False, unescape_html=False, fix_encoding=False)

    def repair(text: str) -> str:
        if _WHOLE.fullmatch(text):
            return text
        lines, escaped = [], True
        for line in _LINES.findall(text):
            # ftfy takes what comes from there on for HTML, whose references mean themselves.
            escaped = escaped and "<" not in line
            lines.append(line if _WHOLE.fullmatch(line) else repair_line(line, escaped))
        return "".join(lines)

    def repair_line(line: str, escaped: bool) -> str:
        rounds, before = 0, None
        while line != before and rounds < MOST_ROUNDS:
            before = line
            if escaped:
                line = ftfy.fixes.unescape_html(line)
            undecoded = None
            while line != undecoded and rounds < MOST_ROUNDS:
                rounds, undecoded = rounds + 1, line
                line = one_step(line, config).text
            line = ftfy.fix_text(line, config)
        return line

    return repair
