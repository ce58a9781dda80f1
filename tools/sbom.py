"""Writes a CycloneDX 1.6 bill of materials of what the binary for Linux is built from, to standard output.

Read from `cargo metadata` and Cargo.lock, so that it needs no network and comes out the same each time.
"""

import hashlib
import json
import re
import subprocess
import sys


def main() -> None:
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    command += ["--filter-platform", "x86_64-unknown-linux-gnu"]
    metadata = json.loads(subprocess.check_output(command))
    packages = {package["id"]: package for package in metadata["packages"]}
    needed = linked(metadata)
    checksums = {
        (name, version): checksum
        for name, version, checksum in re.findall(
            r'name = "(.*)"\nversion = "(.*)"\nsource = ".*"\nchecksum = "(.*)"',
            open("Cargo.lock").read(),
        )
    }
    root = packages[metadata["resolve"]["root"]]
    components = [
        component(packages[package], checksums)
        for package in sorted(needed)
        if package != root["id"]
    ]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(root, {}) | {"type": "application"}},
        "components": sorted(components, key=lambda item: item["purl"]),
        "dependencies": [
            {"ref": purl(packages[package]), "dependsOn": sorted(map(purl, map(packages.get, on)))}
            for package, on in sorted(needed.items())
        ],
    }
    digest = hashlib.sha256(json.dumps(bill, sort_keys=True).encode()).hexdigest()
    bill["serialNumber"] = "urn:uuid:" + "-".join(
        [digest[:8], digest[8:12], "4" + digest[13:16], "8" + digest[17:20], digest[20:32]]
    )
    json.dump(bill, sys.stdout, indent=2)
    print()


def linked(metadata: dict) -> dict:
    """Each package that is needed, but for tests alone, and what it needs."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, queue = {}, [metadata["resolve"]["root"]]
    while queue:
        package = queue.pop()
        if package in found:
            continue
        found[package] = sorted(
            dependency["pkg"]
            for dependency in nodes[package]["deps"]
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
        )
        queue.extend(found[package])
    return found


def purl(package: dict) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package: dict, checksums: dict) -> dict:
    item = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    }
    if package.get("license"):
        # Before SPDX had expressions, crates wrote a slash.
        item["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        item["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return item


main()
