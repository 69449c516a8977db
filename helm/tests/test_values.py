"""Every value is described, is in the README as it is in values.yaml, and is known to the schema."""

import json

import yaml

from rendering import CHART
from values_table import README, VALUES, descriptions, leaves, readme


def test_the_readme_has_the_values_as_they_are():
    assert README.read_text() == readme(), "run: python helm/tests/values_table.py"


def test_every_value_is_described():
    described = descriptions()

    def is_described(path):
        parts = path.split(".")
        return any(".".join(parts[:count]) in described for count in range(1, len(parts) + 1))

    values = [path for path, _ in leaves(yaml.safe_load(VALUES.read_text()))]
    assert len(values) > 80
    assert [path for path in values if not is_described(path)] == []


def test_every_value_of_the_chart_is_in_the_schema_and_the_reverse():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load(VALUES.read_text())

    def resolved(one):
        reference = one.get("$ref")
        return schema["definitions"][reference.rpartition("/")[2]] if reference else one

    def compare(values, part, path):
        properties = resolved(part).get("properties")
        # What is open is Kubernetes' or the gateway's.
        if not properties or resolved(part).get("additionalProperties") is not False:
            return
        missing = values.keys() - properties.keys()
        assert not missing, f"not in the schema: {path}{missing}"
        for key, inner in properties.items():
            if isinstance(values.get(key), dict):
                compare(values[key], inner, f"{path}{key}.")

        # The configuration's values are the defaults that the chart changes, not all there are.
        if path.startswith("config."):
            return
        unknown = properties.keys() - values.keys() - {"global"}
        assert not unknown, f"not in values.yaml: {path}{unknown}"

    compare(values, schema, "")
