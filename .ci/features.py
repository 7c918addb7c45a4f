"""Which feature sets to check, one `PACKAGE|FLAGS` per line, from `cargo metadata` on standard input."""

import json
import sys

for package in json.load(sys.stdin)["packages"]:
    features = sorted(set(package["features"]) - {"default"})
    sets = ["--no-default-features"]
    sets += [f"--no-default-features --features {feature}" for feature in features]
    sets += ["", "--all-features"] if features else []
    for flags in sets:
        print(f"{package['name']}|{flags}")
