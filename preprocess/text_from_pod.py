"""Perl's Plain Old Documentation as readable text (the markup is described in perlpod)."""

from __future__ import annotations

import re
from html import unescape

OPENING = re.compile(r"([A-Z])(?:(<<+)\s+|<)")
NAMED_CHARACTERS = {"verbar": "|", "sol": "/", "lchevron": "«", "rchevron": "»"}
BULLET = re.compile(r"(\*|\d+\.?)(\s+|$)")


def text(pod: str) -> str:
    """One line per paragraph, a blank line between two, code as it stands."""
    blocks: list[str] = []
    indents: list[int] = []
    label = ""  # of a list item, for the paragraph after it
    skipped = ""  # the format whose =begin ... =end is being left out
    for paragraph in re.split(r"\n(?:[ \t]*\n)+", pod.expandtabs()):
        paragraph = paragraph.strip("\n")
        margin = " " * (4 * max(len(indents) - 1, 0))
        command, _, rest = paragraph.partition("\n" if "\n" in paragraph[:6] else " ")
        rest = " ".join(rest.split())
        if skipped:
            skipped = "" if command == "=end" else skipped
        elif command == "=begin":
            skipped = rest or "all"
        elif command == "=over":
            indents.append(4)
        elif command == "=back":
            del indents[-1:]
        elif command == "=item":
            if label:
                blocks.append(margin + label)
            label = inline(rest)
            if not BULLET.fullmatch(label):
                blocks.append(margin + re.sub(r"^\*\s+", "- ", label))
                label = ""
        elif command.startswith("=head"):
            blocks.append(inline(rest))
        elif command.startswith("=") or not paragraph.strip():
            continue
        elif paragraph[0] == " ":
            code_margin = " " * (4 * len(indents))
            blocks.append("\n".join(code_margin + line.rstrip() for line in paragraph.split("\n")))
        else:
            words = inline(" ".join(paragraph.split()))
            if label:
                mark = "-" if label.startswith("*") else label.strip()
                blocks.append(f"{margin}{mark} {words}")
                label = ""
            else:
                blocks.append(margin + words)
    return "\n\n".join(block for block in blocks if block.strip())


def inline(paragraph: str) -> str:
    """A paragraph without its formatting codes: C<...>, L<...>, B<< ... >>."""
    return _until("", paragraph, 0)[0].strip()


def _until(closing: str, source: str, start: int) -> tuple[str, int]:
    """The text up to a closing bracket, and where the source goes on after it."""
    out: list[str] = []
    while True:
        end = source.find(closing, start) if closing else len(source)
        end = len(source) if end < 0 else end
        opening = OPENING.search(source, start, end)
        if opening is None:
            out.append(source[start:end])
            return "".join(out), end + len(closing)
        out.append(source[start : opening.start()])
        many = opening[2]
        content, start = _until(" " + ">" * len(many) if many else ">", source, opening.end())
        out.append(_formatted(opening[1], content.rstrip() if many else content))


def _formatted(code: str, content: str) -> str:
    if code in "XZ":
        return ""
    if code == "E":
        return _character(content)
    if code == "L":
        return _link(content)
    return content


def _character(name: str) -> str:
    if name in NAMED_CHARACTERS:
        return NAMED_CHARACTERS[name]
    if re.fullmatch(r"0x[0-9a-fA-F]+|\d+", name):
        return chr(int(name, 8 if re.fullmatch(r"0[0-7]+", name) else 0))
    return unescape(f"&{name};")


def _link(target: str) -> str:
    shown, bar, _ = target.partition("|")
    if bar:
        return shown
    if re.match(r"\w+:\S+$", target) and "::" not in target:
        return target
    page, _, section = target.partition("/")
    section = section.strip('"')
    if not section:
        return page
    return f'"{section}" in {page}' if page else f'"{section}"'
