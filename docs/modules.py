#!/usr/bin/env python3
"""Draws the rooms of src/ and what each imports from the others, as docs/modules.md.

    python3 docs/modules.py            writes docs/modules.md
    python3 docs/modules.py --check    fails if an arrow runs up, a root re-export is imported, the page is out of date, a file has
                                       more than 400 lines, or a type's public methods are in several files

The source of the picture is the code: every path that begins with `crate::` outside of comments, tests and `cfg(doc)`.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "modules.md"

# From the ground up. A room imports from lower floors, or from rooms of its own floor that come before it.
FLOORS = [
    ["error"],
    ["sys"],
    ["end"],
    ["wait"],
    ["pipe", "socket", "ring", "blob"],
    ["framed", "copy", "inspect", "process"],
    ["channel", "tokio"],
]
# An error may carry what another room makes.
ALLOWED_UP = {("error", "socket")}
# Types whose public methods do not fit one file (docs/decisions.md).
IN_TWO_FILES = {("process", "Command"), ("socket", "DatagramSocket"), ("inspect", "ProcessMap")}
LONGEST = 400
# What is not part of the house: built for the fuzzer, or documentation.
OUTSIDE = {"lib", "fuzzing", "guide"}

ABOUT = {
    "error": "what can go wrong",
    "sys": "the kernel: the only home of unsafe",
    "end": "one owned descriptor, and what can be given",
    "wait": "deadlines, wait_any, spinning",
    "pipe": "streams of bytes, one way",
    "socket": "messages and streams, both ways",
    "ring": "shared memory with the face of a pipe",
    "blob": "immutable bytes that processes share",
    "framed": "many messages in one call",
    "copy": "all of one descriptor to another",
    "inspect": "who holds what",
    "process": "fork, children, other programs",
    "channel": "typed values",
    "tokio": "the ends for tokio",
}


def code_of(path):
    """The text without comments, `cfg(doc)` imports and the unit tests at the end."""
    text = path.read_text()
    text = re.split(r"^#\[cfg\((?:all\()?test\b", text, flags=re.M)[0]
    text = re.sub(r"^\s*#\[cfg\(doc\)\]\n\s*use [^;]*;", "", text, flags=re.M)
    return re.sub(r"//[^\n]*", "", text)


def names(group):
    """The first names of `a::b`, or of each in `{a::b, c}`."""
    group = group.strip()
    if not group.startswith("{"):
        return re.findall(r"^\w+", group)
    depth, first, found = 0, True, []
    for token in re.findall(r"\w+|::|[{},]", group):
        if token == "{":
            depth += 1
            first = depth == 1
        elif token == "}":
            depth -= 1
        elif token == "," and depth == 1:
            first = True
        elif first and re.match(r"\w", token):
            found.append(token)
            first = False
    return found


def look():
    rooms = {room for floor in FLOORS for room in floor}
    files, arrows, wrong = defaultdict(list), defaultdict(set), []
    for path in sorted((ROOT / "src").rglob("*.rs")):
        inside = path.relative_to(ROOT / "src")
        room = inside.parts[0].removesuffix(".rs")
        if room in OUTSIDE:
            continue
        if room not in rooms:
            wrong.append(f"{inside}: no floor is named for the room {room}")
            continue
        files[room].append((str(inside), len(path.read_text().splitlines())))
        code = code_of(path)
        uses = [group for group in re.findall(r"\buse crate::(\{[^;]*\}|[\w:]+(?:::\{[^;]*\})?)", code)]
        paths = [name for group in uses for name in names(group)]
        paths += re.findall(r"(?<!use )\bcrate::(\w+)", code)
        for name in paths:
            if name in rooms:
                if name != room:
                    arrows[room].add(name)
            elif name not in OUTSIDE:
                wrong.append(f"{inside}: imports {name} through the root")
    order = {room: (floor, place) for floor, row in enumerate(FLOORS) for place, room in enumerate(row)}
    for room, targets in sorted(arrows.items()):
        for target in sorted(targets):
            if order[target] > order[room] and (room, target) not in ALLOWED_UP:
                wrong.append(f"an arrow runs up: {room} imports from {target}")
    return files, arrows, wrong


def methods():
    """The files with public methods of each type."""
    homes = defaultdict(set)
    for path in sorted((ROOT / "src").rglob("*.rs")):
        inside = path.relative_to(ROOT / "src")
        for header, body in re.findall(r"^impl\b([^\n]*)\{\n(.*?)^\}", code_of(path), flags=re.M | re.S):
            header = re.sub(r"^<(?:[^<>]|<[^<>]*>)*>", "", header).strip()
            if " for " not in header and re.search(r"^    pub (?:unsafe |const |async )*fn ", body, flags=re.M):
                homes[inside.parts[0], re.match(r"\w+", header)[0]].add(str(inside))
    return homes


def page(files, arrows):
    lines = [
        "# The rooms of the house",
        "",
        "Made from the code by `python3 docs/modules.py`. An arrow points from a room to one that it imports from, and no arrow",
        "runs up. The one dotted arrow is the exception: an error carries what arrived with a message (`Error::EndsLost`).",
        "",
        "```mermaid",
        "flowchart TB",
    ]
    for floor, row in reversed(list(enumerate(FLOORS))):
        here = [room for room in row if room in files]
        if here:
            lines.append(f"    subgraph floor{floor}[ ]")
            # `end` alone is a word of Mermaid's.
            lines += [f'        room_{room}["<b>{room}</b><br>{ABOUT[room]}"]' for room in here]
            lines.append("    end")
    for room in [room for floor in reversed(FLOORS) for room in floor]:
        for target in sorted(arrows.get(room, ())):
            arrow = "-.->" if (room, target) in ALLOWED_UP else "-->"
            lines.append(f"    room_{room} {arrow} room_{target}")
    lines += ["```", "", "| Room | What it is for | Files |", "|---|---|---|"]
    for room in [room for floor in reversed(FLOORS) for room in floor]:
        if room in files:
            listed = ", ".join(f"`{name}`" for name, _ in files[room])
            lines.append(f"| `{room}` | {ABOUT[room]} | {listed} |")
    return "\n".join(lines) + "\n"


def main():
    files, arrows, wrong = look()
    text = page(files, arrows)
    wrong += [f"{name}: {lines} lines" for room in files.values() for name, lines in room if lines > LONGEST]
    for item, homes in methods().items():
        if len(homes) != 1 + (item in IN_TWO_FILES):
            wrong.append(f"the public methods of {item[1]} are in {', '.join(sorted(homes))}")
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text() != text:
            wrong.append("docs/modules.md is out of date: run python3 docs/modules.py")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        PAGE.write_text(text)
    if wrong:
        sys.exit("\n".join(wrong))


main()
