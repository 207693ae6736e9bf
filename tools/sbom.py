#!/usr/bin/env python3
"""Writes the bill of materials of einfield in SPDX 2.3 (JSON): the libraries of packaging/linked_libraries.csv with the
versions and licenses that this machine would build with. The same commit and machine give the same file.

    tools/sbom.py VERSION > einfield.spdx.json
"""
import csv
import datetime
import json
import pathlib
import subprocess
import sys
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
ORGANIZATION = "Organization: The einfield developers"


def output(*command):
    """What a command prints; empty if it is missing or fails."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def libraries():
    lines = (ROOT / "packaging/linked_libraries.csv").read_text().splitlines()
    return csv.DictReader((line for line in lines if not line.startswith("#")),
                          fieldnames=["name", "module", "package", "license", "how"])


def package(identifier, name, version, license, **more):
    return {"SPDXID": identifier, "name": name, "versionInfo": version, "licenseDeclared": license,
            "licenseConcluded": license, "copyrightText": "NOASSERTION", "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False, **more}


def linked(row):
    installed = output("dpkg-query", "--show", "--showformat=${Version}", row["package"])
    version = output("pkg-config", "--modversion", row["module"]) or installed
    if not version:
        sys.exit(f"sbom: neither pkg-config nor dpkg knows the version of {row['name']}")
    identifier = "SPDXRef-" + row["name"].replace("+", "p")
    source = {"sourceInfo": f"Debian package {row['package']} {installed}"} if installed else {}
    return package(identifier, row["name"], version, row["license"], **source)


def document(version):
    commit = output("git", "rev-parse", "HEAD")
    seconds = output("git", "log", "-1", "--format=%ct")
    if not commit or not seconds:
        sys.exit("sbom: not in a git repository")
    created = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)
    rows = list(libraries())
    packages = [linked(row) for row in rows]
    main = package("SPDXRef-einfield", "einfield", version, "MIT", supplier=ORGANIZATION, sourceInfo=f"commit {commit}")
    kinds = {"shared": "DYNAMIC_LINK", "headers": "STATIC_LINK"}
    relations = [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
                  "relatedSpdxElement": main["SPDXID"]}]
    relations += [{"spdxElementId": main["SPDXID"], "relationshipType": kinds[row["how"]],
                   "relatedSpdxElement": item["SPDXID"]} for row, item in zip(rows, packages)]
    content = json.dumps([main, packages])
    return {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"einfield-{version}",
            "documentNamespace": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}",
            "creationInfo": {"created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
                             "creators": [ORGANIZATION, "Tool: einfield-tools/sbom.py"]},
            "packages": [main, *packages], "relationships": relations}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(json.dumps(document(sys.argv[1]), indent=2))
