"""The table of values in the chart's README, made of the comments in values.yaml.

`python helm/tests/values_table.py` writes it; a test fails when it is not what values.yaml says.
"""

import json
import re

import yaml

from rendering import CHART

VALUES = CHART / "values.yaml"
README = CHART / "README.md"
BEGIN = "<!-- begin of the table of values -->"
END = "<!-- end of the table of values -->"

KEY = re.compile(r'^( *)"?([A-Za-z]+)"?:(?: |$)')


def descriptions():
    """Path of each value to the comment above it, in the order of the file."""
    described = {}
    path = []
    comment = []
    for line in VALUES.read_text().splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").strip())
            continue
        if match := KEY.match(line):
            path = [*path[: len(match[1]) // 2], match[2]]
            if comment:
                described[".".join(path)] = " ".join(comment)
        # A line that is empty ends a comment which is about no value, such as the file's own.
        comment = []
    return described


def leaves(value, path=()):
    """Path of each value that holds no further ones, and the value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield ".".join(path), value


def default(path):
    value = yaml.safe_load(VALUES.read_text())
    for key in path.split("."):
        value = value[key]
    return value


def table():
    described = descriptions()
    rows = ["| value | meaning | default |", "| --- | --- | --- |"]
    for path, text in described.items():
        # A section whose values are described one by one has no default of its own.
        is_section = any(other.startswith(f"{path}.") for other in described)
        shown = "" if is_section else f"`{json.dumps(default(path))}`"
        rows.append(f"| `{path}` | {text} | {shown} |".replace("|  |", "| |"))
    return "\n".join(rows)


def readme():
    """The README as it should be."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(readme())
