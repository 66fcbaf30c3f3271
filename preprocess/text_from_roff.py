"""Manual pages in the man(7) macros as readable text.

Not a formatter: paragraphs become single lines, so that the text does not depend on the width of
a terminal or on which of man-db and mandoc is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import normalize

ESCAPE = re.compile(
    r"""\\(?:
      f(?:\[[^]]*\]|\(..|.)                              # font
    | s(?:[-+]?\d|\[[^]]*\])                             # size
    | [vhwboDLlXZ]'[^']*'                                # motion, drawing
    | n(?:\[[^]]*\]|\(..|.)                              # number register
    | \*?\[(?P<long>[^]]*)\] | \*?\((?P<two>..)          # special character or string
    | \*(?P<one>.)
    | "(?P<comment>.*)
    | (?P<plain>.)
    )""",
    re.VERBOSE,
)
PLAIN = {**dict.fromkeys(" ~0", " "), **dict.fromkeys("e\\", "\\"), "t": "\t", "-": "-", ".": "."}
PLAIN |= {"'": "'", "`": "`", '"': '"', "(": "("}
CHARACTERS = """
    aq:' oq:' cq:' dq:" lq:" rq:" ga:` ti:~ ha:^ rs:\\ bu:• em:— en:– hy:- mi:- la:< ra:> lB:[ rB:]
    bv:| ba:| or:| at:@ sh:# Do:$ de:° co:© rg:® R:® tm:™ Tm:™ mu:× +-:± mc:µ ->:→ <-:← <=:≤ >=:≥
    !=:≠ if:∞ no:¬ di:÷ Fo:« Fc:» sc:§ *m:μ *p:π 12:½ 14:¼ Po:£ pl:+ eq:= **:* sr:√ ss:ß mo:∈
"""
SPECIAL = dict(pair.split(":", 1) for pair in CHARACTERS.split())
ACCENTS = {"'": "\u0301", "`": "\u0300", ":": "\u0308", "^": "\u0302", "~": "\u0303", ",": "\u0327"}
ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|[^\s\\])+)')
MARK = re.compile(r"[^\w\s]|\(?\w{1,2}[.)]|")  # of a list item: a bullet, 1., (a)
STEP = 4


def text(source: str) -> str | None:
    """The page's text, or None where the source only points to another page."""
    if re.search(r"^\.so\s", source, re.MULTILINE):
        return None
    page = _Page()
    page.read(re.sub(r"(?<!\\)((?:\\\\)*)\\\n", r"\1", source).split("\n"))
    return page.finished()


def inline(words: str) -> str:
    """Text without its escapes."""
    return ESCAPE.sub(_escaped, words)


def _escaped(match: re.Match[str]) -> str:
    if match["plain"] is not None:
        return PLAIN.get(match["plain"], "")
    name = match["long"] or match["two"] or match["one"]
    if name is None:
        return ""
    if re.fullmatch(r"u[0-9A-F]{4,6}", name):
        return chr(int(name[1:], 16))
    if len(name) == 2 and name[0] in ACCENTS and name[1].isalpha():
        return normalize("NFC", name[1] + ACCENTS[name[0]])
    return SPECIAL.get(name, "")


def _arguments(rest: str) -> list[str]:
    quoted = (
        m[2] if m[2] is not None else m[1].replace('""', '"') for m in ARGUMENT.finditer(rest)
    )
    return [inline(argument) for argument in quoted]


class _Page:
    """The state of the macros: margins, filling, a pending label of a list item."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.words: list[str] = []
        self.base = [0]  # one margin for each .RS
        self.hang = 0  # the item's own indentation
        self.extra = 0  # of .in
        self.fill = True
        self.label = ""  # stands before the next paragraph
        self.tag_next = False

    def read(self, source: list[str]) -> None:
        lines = iter(source)
        for line in lines:
            if re.match(r"[.'][ \t]*\\?\"|[.']\s*$", line):
                continue
            macro = re.match(r"[.'][ \t]*(\S+)[ \t]*(.*)", line)
            if macro is None:
                self.text(inline(line))
                continue
            name, rest = macro[1], re.sub(r'(?<!\\)\\".*', "", macro[2])
            if name == "TS":
                self.table(lines)
            elif name in ("de", "ig"):
                for skipped in lines:
                    if skipped.startswith(".."):
                        break
            else:
                self.macro(name, rest)

    def macro(self, name: str, rest: str) -> None:
        arguments = _arguments(rest)
        if name == "TH":
            title, section, *_ = [*arguments, "", ""]
            self.lines.append(f"{title}({section})")
            self.blank()
        elif name in ("SH", "SS"):
            self.section(" ".join(arguments))
        elif name in ("B", "I", "SM", "SB"):
            self.text(" ".join(arguments))
        elif name in ("BI", "BR", "IB", "IR", "RB", "RI"):
            self.text("".join(arguments))
        elif name in ("PP", "P", "LP", "HP", "sp"):
            self.paragraph(0 if name != "sp" else self.hang)
        elif name in ("TP", "TQ"):
            self.paragraph(0) if name == "TP" else self.flush()
            self.tag_next = True
        elif name == "IP":
            self.paragraph(STEP)
            self.item(arguments[0] if arguments else "")
        elif name == "RS":
            self.flush()
            self.base.append(self.base[-1] + (self.hang or STEP))
            self.hang = 0
        elif name == "RE":
            self.flush()
            del self.base[max(1, len(self.base) - 1) :]
        elif name in ("nf", "EX", "fi", "EE"):
            self.flush()
            self.fill = name in ("fi", "EE")
        elif name == "in":
            self.flush()
            self.extra = STEP if rest.startswith("+") else 0
        elif name in ("br", "YS"):
            self.flush()
        elif name in ("UR", "MT"):
            self.text("<" + " ".join(arguments) + ">")
        elif name in ("SY", "OP", "q"):
            open_, close = {"SY": ("", ""), "OP": ("[", "]"), "q": ('"', '"')}[name]
            self.text(open_ + " ".join(arguments) + close)

    def text(self, words: str) -> None:
        if self.tag_next:
            self.tag_next = False
            self.hang = 0
            self.item(words.strip())
            self.hang = STEP
        elif not self.fill:
            self.emit(words.rstrip())
        elif words.startswith(" "):
            self.flush()
            self.words.append(words.strip())
        elif words.strip():
            self.words.append(words.strip())

    def item(self, label: str) -> None:
        """A short mark stands on the line of its paragraph, a term on its own."""
        if MARK.fullmatch(label):
            self.label = f"{label} " if label else ""
        else:
            hang, self.hang = self.hang, 0
            self.emit(label)
            self.hang = hang

    def section(self, title: str) -> None:
        self.paragraph(0)
        self.base, self.extra, self.fill = [0], 0, True
        self.emit(title)

    def paragraph(self, hang: int) -> None:
        self.flush()
        self.hang = hang
        self.blank()

    def flush(self) -> None:
        if self.words or self.label:
            words = " ".join(" ".join(self.words).split())
            self.words = []
            self.emit((self.label + words).strip())
            self.label = ""

    def emit(self, line: str) -> None:
        margin = " " * (self.base[-1] + self.hang + self.extra)
        self.lines.append((margin + line.expandtabs()) if line else "")

    def blank(self) -> None:
        if self.lines and self.lines[-1]:
            self.lines.append("")

    def table(self, lines: Iterator[str]) -> None:
        """A tbl table: cells side by side, two spaces between them."""
        self.paragraph(self.hang)
        in_format, row, in_cell = True, "", False
        for line in lines:
            if line.startswith(".TE"):
                break
            if line.startswith(".T&"):
                in_format = True
            elif in_format:
                in_format = not line.rstrip().endswith(".")
            elif in_cell and not line.startswith("T}"):
                row += self.cell_text(line) + " "
            elif line.strip("_= \t") and not line.startswith(".\\"):
                row = row.rstrip() + (line[2:] if in_cell else line)
                in_cell = row.endswith("T{")
                if in_cell:
                    row = row[:-2]
                elif not re.match(r"[.']", row):
                    cells = (" ".join(inline(cell).split()) for cell in row.split("\t"))
                    self.emit("  ".join(cell for cell in cells if cell))
                    row = ""
                else:
                    row = ""
        self.blank()

    @staticmethod
    def cell_text(line: str) -> str:
        macro = re.match(r"[.'][ \t]*(\S+)[ \t]*(.*)", line)
        if macro is None:
            return line
        if macro[1] in ("B", "I", "SM", "BI", "BR", "IB", "IR", "RB", "RI"):
            between = "" if len(macro[1]) == 2 and macro[1] != "SM" else " "
            # Escaped again, because the whole row is unescaped at its end.
            return between.join(_arguments(macro[2])).replace("\\", "\\\\")
        return ""

    def finished(self) -> str:
        self.flush()
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self.lines)).strip()
