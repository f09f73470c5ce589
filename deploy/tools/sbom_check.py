#!/usr/bin/env python3
"""Reads lists of parts by the strict schema of the CycloneDX version that they name; fails where one is not what it says."""
import json
import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

wrong = 0
for name in sys.argv[1:]:
    text = pathlib.Path(name).read_text()
    listed = json.loads(text)
    version = listed["specVersion"]
    mistake = JsonStrictValidator(SchemaVersion.from_version(version)).validate_str(text)
    wrong += mistake is not None
    said = mistake or f"CycloneDX {version}, {len(listed['components'])} parts"
    print(f"{name}: {said}"[:400])
sys.exit(wrong > 0)
