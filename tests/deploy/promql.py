"""What a PromQL expression asks for, and what there is: deploy/prometheus/metrics.md.

Not a parser of PromQL: promtool says whether an expression is one. This only finds names, which
promtool does not know.
"""

import os
import pathlib
import re
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "feiqian.rules.yml"

# Prometheus adds the first two to every series, a histogram the third.
ALWAYS = {"job", "instance"}
# Of others: Prometheus itself and node_exporter.
FOREIGN = {"up", "ALERTS", "node_filesystem_avail_bytes", "node_filesystem_size_bytes"}


def listed():
    """Metric -> (kind, label -> its values; none: any)."""
    metrics = {}
    for line in (DEPLOY / "prometheus" / "metrics.md").read_text().splitlines():
        row = re.match(r"\| `(\w+)` \| (\w+) \|(.*?)\|", line)
        if row:
            labels = {}
            for label in filter(None, map(str.strip, row[3].split(";"))):
                name, _, values = label.partition(":")
                labels[name] = {it.strip() for it in values.split(",") if it.strip()}
            metrics[row[1]] = (row[2], labels)
    return metrics


def series():
    """Every name that can be asked for -> label -> its values."""
    known = {}
    for name, (kind, labels) in listed().items():
        if kind == "histogram":
            known |= {name + "_bucket": labels | {"le": set()}, name + "_sum": labels, name + "_count": labels}
        else:
            known[name] = labels
    return known


def rules():
    for group in yaml.load(RULES.read_text(), yaml.CSafeLoader)["groups"]:
        yield from group["rules"]


def names(expression):
    bare = re.sub(r'"[^"]*"', '""', expression)
    return {it for it in re.findall(r"[a-zA-Z_:][\w:]*", bare) if "feiqian" in it or it in FOREIGN or it.startswith("node_")}


def complaints(expression):
    """What the expression asks for that there is not."""
    known = series()
    recorded = {it["record"] for it in rules() if "record" in it}
    found = [f"no metric {it}" for it in names(expression) if it not in known and it not in recorded | FOREIGN]
    for name, selector in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", expression):
        for label, _, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector):
            if name not in known or label in ALWAYS:
                continue
            if label not in known[name]:
                found.append(f"{name} has no label {label}")
            elif values := known[name][label]:
                found += [f"{name} has no {label}={it}" for it in value.split("|") if it not in values]
    labels = ALWAYS.union(*known.values())
    for group in re.findall(r"\b(?:by|on|group_left)\s*\(([^)]*)\)", expression):
        found += [f"no label {it}" for it in re.findall(r"\w+", group) if it not in labels]
    return found


def check_rules(groups):
    """What promtool says against these rule groups; empty: nothing."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump({"groups": groups}, file)
        file.flush()
        done = subprocess.run([os.environ["PROMTOOL"], "check", "rules", file.name], capture_output=True, text=True)
    return done.stderr if done.returncode else ""
