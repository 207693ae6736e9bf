#!/usr/bin/env python3
"""What the documentation says, tried out.

    tests/docs_commands.py EINFIELD

- Blocks ```console in docs/ are run, each page in its own folder with the configurations of docs/. Lines after "$ " are
  commands, what follows is their output, in which "..." stands for anything. Without output only the status counts.
- Blocks of shell commands that are not run say so (:class: not-run).
- Every `einfield COMMAND --option` on any page, run or not, names a command and options that exist.
- Keys of a configuration that a page names exist.
- Blocks of Python can be compiled, blocks of TOML parsed.
- Links to files lead somewhere.
- The messages of docs/troubleshooting.md are in the sources.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("*.md", "docs/*.md", "examples/**/*.md", "tests/README.md", "bench/README.md")
PAGES = sorted(page for folder in FOLDERS for page in ROOT.glob(folder))
FENCE = re.compile(r"^(```+)(.*?)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
problems: list[str] = []


def fail(page: Path, message: str) -> None:
    problems.append(f"{page.relative_to(ROOT)}: {message}")


# ---- commands that are run ---------------------------------------------------------------------------------------------


def matches(expected: str, found: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, expected.split("..."))), found.strip(), re.DOTALL) is not None


def run_block(page: Path, block: str, folder: str, environment: dict[str, str]) -> int:
    """@return the number of commands"""
    steps = re.split(r"^\$ ", block, flags=re.MULTILINE)
    if steps[0].strip():
        fail(page, f"a block begins with output: {steps[0].strip()}")
    for step in steps[1:]:
        command, _, expected = step.partition("\n")
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            fail(page, f"{command}: status {done.returncode}: {done.stderr.strip()}")
        elif expected.strip() and not matches(expected.strip(), done.stdout):
            fail(page, f"{command}: found\n{done.stdout}expected\n{expected}")
    return len(steps) - 1


def run_pages(einfield: Path) -> int:
    environment = os.environ | {"PATH": f"{einfield.parent}:{os.environ['PATH']}"}
    commands = 0
    for page in PAGES:
        if page.parent != ROOT / "docs":
            continue
        with tempfile.TemporaryDirectory(prefix="einfield-docs-") as folder:
            for file in ROOT.glob("docs/*.toml"):
                shutil.copy(file, folder)
            for _, language, block in FENCE.findall(page.read_text()):
                language = language.strip()
                if language == "console":
                    commands += run_block(page, block, folder, environment)
                elif re.search(r"\b(sh|bash|shell|console)$", language) and ":class: not-run\n" not in block:
                    fail(page, f"commands that are neither run (```console) nor marked as not-run: {block.strip()}")
    return commands


# ---- commands that are named -------------------------------------------------------------------------------------------


@cache
def help_of(einfield: Path, command: str) -> str | None:
    """The help of a command, or of "--keys" the list of keys; None if there is no such command."""
    words = ["info", command] if command == "--keys" else ["help", *command.split()]
    done = subprocess.run([einfield, *words], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def check_named(einfield: Path, page: Path) -> int:
    """Commands in blocks, fenced or indented, and between backticks. @return their number"""
    text = page.read_text()
    blocks = "\n".join(block for _, _, block in FENCE.findall(text)) + "\n"
    blocks += "\n".join(re.findall(r"^ {4}(.*)", text, re.MULTILINE))
    found = re.findall(r"^(?:\$ )?(?:\S*/)?einfield ([a-z].*)", blocks, re.MULTILINE) + re.findall(r"`einfield ([a-z][^`]*)`", text)
    for line in found:
        words = re.split(r"[;|>#]|&&", line)[0].split()
        batch = words[0] == "batch" and len(words) > 1 and words[1].isalpha() and words[1].islower()
        command = " ".join(words[: 2 if batch else 1])
        known = help_of(einfield, command)
        if known is None:
            fail(page, f"no such command: einfield {line}")
            continue
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", " ".join(words)):
            if not re.search(re.escape(option) + r"(?![\w-])", known):
                fail(page, f"einfield {command} has no option {option}: einfield {line}")
    return len(found)


TABLES = "observation|lens|source|lens_light|network|optimizer|regularization|uncertainty|cosmology|truth|simulate|perturbation"


def check_keys(einfield: Path, page: Path) -> int:
    """Keys of a configuration between backticks, as `lens.0.theta_E`, and those of --set. @return their number"""
    known = set(re.findall(r"^  (\S+)", help_of(einfield, "--keys") or "", re.MULTILINE))
    text = page.read_text()
    found = re.findall(rf"`((?:{TABLES})\.[\w.]+)`", text) + re.findall(r"--set ['\"]?([\w.]+)=", text)
    found = [name for name in found if not re.search(r"\.(fits|hpp|safetensors|toml)$", name) and name not in NO_KEYS]
    for key in found:
        general = re.sub(r"\.\d+\b", ".N", key)
        general = re.sub(r"^lens_light\.N", "source.N", re.sub(r"^perturbation\.N", "lens.N", general))
        if general not in known:
            fail(page, f"no such key: {key}")
    return len(found)


NO_KEYS = {"lens.0", "lens.model", "uncertainty.coverage"}  # a component, a method of herculens, a member of result.json


# ---- other languages ---------------------------------------------------------------------------------------------------


def check_languages(page: Path) -> int:
    """Blocks of Python can be compiled, blocks of TOML parsed. @return their number"""
    blocks = 0
    for _, language, block in FENCE.findall(page.read_text()):
        block = re.sub(r"^:.*\n", "", block, flags=re.MULTILINE)
        try:
            if language.endswith("python"):
                compile(block, page.name, "exec")
            elif language == "toml":
                tomllib.loads(block)
            else:
                continue
        except (SyntaxError, tomllib.TOMLDecodeError) as error:
            fail(page, f"a block in {language} with an error: {error}")
        blocks += 1
    return blocks


# ---- links and messages ------------------------------------------------------------------------------------------------


def check_links(page: Path) -> int:
    """@return the number of links to files"""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"`[^`]*`", "", page.read_text()))
    files = [link for link in links if not re.match(r"[a-z]+:", link)]
    for link in files:
        if not (page.parent / link).exists():
            fail(page, f"a link to a file that does not exist: {link}")
    return len(files)


def check_messages() -> int:
    """@return the number of messages"""
    sources = "".join(path.read_text() for folder in ("host", "include") for path in sorted((ROOT / folder).rglob("*.?pp")))
    sources += (ROOT / "CMakeLists.txt").read_text()
    sources = re.sub(r'"\s*\n\s*"', "", sources)
    page = ROOT / "docs/troubleshooting.md"
    rows = re.findall(r"^\| (`.*?`) \|", page.read_text(), re.MULTILINE)
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    for message in messages:
        for part in message.split("…"):
            part = part.strip(" :(),")
            if len(part) > 3 and part not in sources:
                fail(page, f"no message says: {part}")
    return len(messages)


def main() -> None:
    einfield = Path(sys.argv[1]).resolve()
    named = sum(check_named(einfield, page) for page in PAGES)
    keys = sum(check_keys(einfield, page) for page in PAGES)
    blocks = sum(check_languages(page) for page in PAGES)
    links = sum(check_links(page) for page in PAGES)
    messages = check_messages()
    commands = run_pages(einfield)
    numbers = (
        f"{commands} commands run, {named} named, {keys} keys, {blocks} blocks of Python and TOML, {links} links, {messages} messages"
    )
    if commands < 10 or named < 50 or keys < 20 or blocks < 10 or links < 30 or messages < 20:
        problems.append(f"too little was found: {numbers}")
    print("\n".join(problems) or f"ok: {numbers}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
