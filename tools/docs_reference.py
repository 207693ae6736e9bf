#!/usr/bin/env python3
"""Writes the pages of the reference that follow from the command and the headers. tools/docs.sh calls it.

    tools/docs_reference.py EINFIELD DOXYGEN_XML OUT
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from collections.abc import Iterable
from pathlib import Path

from study import images_of

ROOT = Path(__file__).resolve().parents[1]


def run(binary: Path, *words: str, folder: Path | None = None) -> str:
    done = subprocess.run([binary, *words], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{binary} {' '.join(words)}: status {done.returncode}\n{done.stderr}")
    return done.stdout


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"

    head = list(head)
    return line(head) + line(["---"] * len(head)) + "".join(line(row) for row in rows)


def code(text: str) -> str:
    return f"`{text}`" if text not in ("", "-") else ""


# ---- what the command says ---------------------------------------------------------------------------------------------


def commands_page(binary: Path) -> str:
    def names_in(text: str) -> list[str]:
        part = text.split("Commands:\n")
        return re.findall(r"^  (\S+)", part[1], re.MULTILINE) if len(part) > 1 else []

    def section(words: list[str], depth: int) -> str:
        text = run(binary, "help", *words)
        title = " ".join(["einfield", *words])
        below = [] if words == ["help"] else names_in(text)
        return f"{'#' * depth} {title}\n\n```{{code-block}} text\n{text.strip()}\n```\n\n" + "".join(
            section([*words, name], depth + (1 if words else 0)) for name in below
        )

    return (
        "# Commands\n\nAs `einfield help` and `einfield COMMAND --help` print them. After installation there is a manual page "
        "for each command, `man einfield-fit`, and completion for bash and zsh.\n\n" + section([], 2)
    )


def keys_page(binary: Path) -> str:
    page = (
        "# Keys of the configuration\n\nAs `einfield info --keys` prints them. N is the index of a component in its block, from 0. "
        "`--set KEY=VALUE` uses the same names. Paths are relative to the configuration file. Defaults are those of "
        '`recipe = "default"`; another recipe has others.\n\n'
    )
    for block in run(binary, "info", "--keys").split("\n\n")[1:]:
        title, *lines = block.strip("\n").split("\n")
        rows = []
        for line in lines:
            cells = re.split(r" {2,}", line.strip(), maxsplit=5)
            if len(cells) not in (5, 6):
                sys.exit(f"info --keys: found {len(cells)} columns, expected 6: {line}")
            key, kind, unit, bounds, default, meaning = cells + [""] * (6 - len(cells))
            rows.append([code(key), kind, unit.removeprefix("-"), code(bounds), code(default), text_of_help(meaning)])
        page += f"## {text_of_help(title)}\n\n" + table(["key", "type", "unit", "range", "default", "meaning"], rows) + "\n"
    return page


def text_of_help(text: str) -> str:
    """Text of the command in Markdown: names in brackets are no links, stars no emphasis."""
    return re.sub(r"([\[\]*_<>])", r"\\\1", text)


def flags_page(binary: Path) -> str:
    rows: list[list[str]] = []
    for line in run(binary, "info", "--flags").splitlines()[1:]:
        found = re.match(r" *(\d+)  (\w+) +(\w+) +(.*)", line)
        if found:
            rows.append([found[1], code(found[2]), found[3], text_of_help(found[4]), ""])
        elif line.strip().startswith("because "):
            rows[-1][4] = text_of_help(line.strip().removeprefix("because "))
        else:
            sys.exit(f"info --flags: a line that is no flag: {line}")
    return (
        "# Flags\n\nAs `einfield info --flags` prints them. A flag says what may be wrong with a fit. The status of a fit is the "
        "worst one of its flags; without any it is `ok`. The column `flags` of a survey's table is the sum of 2^bit.\n\n"
        + table(["bit", "flag", "status", "meaning", "reason of the threshold"], rows)
    )


# ---- what a run leaves -------------------------------------------------------------------------------------------------

# Meaning of every HDU that result.fits can have. The units are read from the files.
HDUS = {
    "DATA": "the image",
    "NOISE": "1 σ of every pixel, as it was used",
    "MASK": "1 = fitted",
    "PSF": "as it was used",
    "NOISE_CORRELATION": "the kernel of correlated noise",
    "MODEL": "model image after the PSF",
    "RESIDUAL": "(data − model)/noise; NaN where not fitted",
    "LENS_LIGHT": "the lens's own light after the PSF",
    "ARCS": "data without the lens light",
    "ARCS_MODEL": "model without the lens light",
    "SOURCE": "source plane, with its own WCS in arcsec",
    "PSI_NN": "potential of the network, up to a constant",
    "ALPHA_NN": "deflection of the network: x, then y",
    "KAPPA_NN": "convergence of the network",
    "PSI_NN_STD": "1 σ of PSI_NN",
    "ALPHA_NN_STD": "1 σ of ALPHA_NN",
    "KAPPA_NN_STD": "1 σ of KAPPA_NN",
    "KAPPA_NN_SNR": "KAPPA_NN over its error",
    "KAPPA_NN_PSF": "KAPPA_NN convolved with the PSF: at the resolution of the data",
    "KAPPA_NN_PSF_STD": "its 1 σ",
    "SENSITIVITY": "by how many σ a pixel changes per arcsec of deflection",
    "PSI_MACRO": "potential of the smooth model",
    "ALPHA_MACRO": "deflection of the smooth model: x, then y",
    "KAPPA_MACRO": "convergence of the smooth model",
    "PSI_TRUE": "of simulated data: potential of what the smooth model misses",
    "ALPHA_TRUE": "likewise its deflection",
    "KAPPA_TRUE": "likewise its convergence",
    "IMAGE_TRUE": "of simulated data: the image without noise",
}

# A network with error bars, a PSF, correlated noise and a truth: the fit that has every HDU.
EVERY_HDU = """
[observation]
image = "i.fits[IMAGE]"
noise = "i.fits[NOISE]"
psf = "i.fits[PSF]"
pixel_scale = 0.2
measure_noise_correlation = true
[[lens]]
profile = "SIE"
theta_E = 1.2
[[source]]
profile = "GAUSSIAN"
amp = 300.0
sigma = 0.2
[network]
hidden = [4]
ensemble = 1
[optimizer]
steps = 2
[uncertainty]
method = "laplace"
[truth]
file = "i.fits"
[simulate]
nx = 30
ny = 30
noise = 1.0
psf = { fwhm = 0.3 }
[[perturbation]]
profile = "SIS"
theta_E = 0.1
center_x = 1.2
"""


def hdus_page(binary: Path, folder: Path) -> str:
    (folder / "c.toml").write_text(EVERY_HDU)
    run(binary, "simulate", "c.toml", folder=folder)
    run(binary, "fit", "c.toml", "--quiet", "--out", "fit", folder=folder)
    units = {h["EXTNAME"]: h.get("BUNIT", "") for h, _ in images_of(folder / "fit/result.fits") if "EXTNAME" in h}
    if set(units) != set(HDUS):
        sys.exit(f"result.fits: HDUs {sorted(set(units) ^ set(HDUS))} are in one of result.fits and HDUS in {__file__} only")
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs/results.md").read_text()))
    missing = set(json.loads((folder / "fit/result.json").read_text())) - documented
    if missing:
        sys.exit(f"docs/results.md: no word about {sorted(missing)} of result.json")
    rows = [[code(name), unit.replace("arcsec2", "arcsec²").replace("-1", "⁻¹"), HDUS[name]] for name, unit in units.items()]
    return (
        "# HDUs of result.fits\n\nImages are (ny, nx) with row 0 at the bottom, in the precision of the run. Every HDU has its unit "
        "(`BUNIT`) and coordinates: the celestial WCS of the image where it has one, else arcsec. The unit of brightness is that of "
        "the image.\n\n"
        + table(["HDU", "unit", "content"], rows)
        + "\n`PSF`, `NOISE_CORRELATION`, the maps of the network, error bars and `_TRUE` are there where the fit has them. Pixels of "
        'a component with `profile = "PIXELATED"` beside others are `SOURCE_0`, `LENS_LIGHT_0` …, on their own grids.\n'
    )


def columns_page(binary: Path, folder: Path) -> str:
    run(binary, "simulate", "--survey", "1", "--out", "sim", folder=folder)
    run(binary, "batch", "run", "sim/survey.ecsv", "--template", "sim/lens.toml", "--out", "fits", "--quiet", folder=folder)
    run(binary, "batch", "collect", "fits", "--out", "fits.ecsv", folder=folder)
    rows = []
    for line in (folder / "fits.ecsv").read_text().splitlines():
        if not line.startswith("# - {name:"):
            continue
        name, kind = re.search(r"name: ([^,}]+)", line), re.search(r"datatype: (\w+)", line)
        unit = re.search(r"unit: ([^,}]+)", line)
        meaning = re.search(r"description: (?:\"([^\"]*)\"|'([^']*)'|([^}]*))", line)
        if not name or not kind or not meaning:
            sys.exit(f"batch collect: a column that this script cannot read: {line}")
        described = text_of_help(next(filter(None, meaning.groups()), ""))
        rows.append([code(name[1].strip("'\"")), kind[1], unit[1].strip("'\"") if unit else "", described])
    if len(rows) < 20:
        sys.exit(f"batch collect: found {len(rows)} columns")
    return (
        "# Columns of a survey's table\n\nOf `einfield batch collect`, in FITS or ECSV, one row a lens. Parameters are those that are "
        "free in any lens, named like keys, so that a table can be the manifest of the next run; these are of the template that "
        "`einfield simulate --survey` writes. `ra`, `dec`, `z_lens` and `z_source` are carried over from the manifest.\n\n"
        + table(["column", "type", "unit", "meaning"], rows)
    )


# ---- the C++ interface: a section for each header, in the order of Doxygen's lists -------------------------------------


def text_of(node: xml.Element | None) -> str:
    return "" if node is None else "".join(node.itertext())


def leading_comment(header: Path) -> str:
    """What the header says of itself: the lines of // at its beginning."""
    lines = []
    for line in header.read_text().splitlines():
        if not line.startswith("//"):
            break
        lines.append(line.removeprefix("//").strip())
    return " ".join(lines)


def members_by_header(doxygen: Path) -> dict[str, list[str]]:
    """Directives of Breathe for what the namespaces hold, by the header that declares it."""
    found: dict[str, list[str]] = {}

    def add(node: xml.Element, directive: str) -> None:
        place = node.find("location")
        if place is not None:
            found.setdefault(place.get("declfile") or place.get("file", ""), []).append(directive)

    for page in sorted(doxygen.glob("namespaceeinfield*.xml")):
        namespace = next(xml.parse(page).getroot().iter("compounddef"))
        name = text_of(namespace.find("compoundname"))
        for inner in namespace.findall("innerclass"):
            if text_of(inner).count("::") > name.count("::") + 1:
                continue  # a class in a class is shown with the outer one
            compound = next(xml.parse(doxygen / f"{inner.get('refid')}.xml").getroot().iter("compounddef"))
            add(compound, f"{{doxygen{compound.get('kind')}}} {text_of(inner)}\n:members:")
        for member in namespace.iter("memberdef"):
            kind, arguments = member.get("kind"), text_of(member.find("argsstring"))
            full = f"{name}::{text_of(member.find('name'))}" + (arguments if kind == "function" else "")
            add(member, f"{{doxygen{kind}}} {full}")
    return found


def headers_page(title: str, members: dict[str, list[str]], headers: list[Path]) -> str:
    page = f"# {title}\n\n"
    for header in headers:
        name = header.relative_to(ROOT / "include").as_posix()
        page += f"## {name}\n\n{text_of_help(leading_comment(header))}\n\n"
        for file, directives in members.items():
            if file.endswith(name):
                page += "".join(f"```{directive}\n```\n\n" for directive in directives)
    return page


def main() -> None:
    binary, doxygen, out = (Path(argument).resolve() for argument in sys.argv[1:])
    members = members_by_header(doxygen)
    headers = sorted((ROOT / "include/einfield").rglob("*.hpp"))
    cuda = [header for header in headers if header.stem.startswith("cuda")]
    pages = {
        "commands": commands_page(binary),
        "keys": keys_page(binary),
        "flags": flags_page(binary),
        "cpp": headers_page("C++", members, [header for header in headers if header not in cuda]),
        "cuda": headers_page("CUDA", members, cuda),
    }
    with tempfile.TemporaryDirectory() as folder:
        pages["hdus"] = hdus_page(binary, Path(folder))
        pages["columns"] = columns_page(binary, Path(folder))
    for name, text in pages.items():
        (out / f"{name}.md").write_text(text)


if __name__ == "__main__":
    main()
