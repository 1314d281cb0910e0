"""What commands answer as JSON, held to the schema that the package ships, and to nothing but what it names."""

import functools
import json
from copy import deepcopy

import jsonschema
import pytest

from sparsehess.commands.answer_schema import schema_text

SCHEMA = json.loads(schema_text())


def closed(schema):
    """Return a schema that takes no property which it does not name."""
    schema = deepcopy(schema)
    for definition in schema["$defs"].values():
        if definition["additionalProperties"] is True:
            definition["additionalProperties"] = False
    return schema


CLOSED = closed(SCHEMA)


@functools.cache
def validator(name=None):
    """Return what validates answers, or what a definition is of."""
    what = CLOSED if name is None else {"$ref": f"#/$defs/{name}", "$defs": CLOSED["$defs"]}
    return jsonschema.Draft202012Validator(what)


def valid(facts, name=None):
    """Return facts that are as the schema says."""
    errors = sorted(validator(name).iter_errors(facts), key=lambda error: list(map(str, error.path)))
    assert not errors, "\n".join(f"{'.'.join(map(str, e.absolute_path))}: {e.message[:300]}" for e in errors)
    return facts


def parse(text, name=None):
    """Return the facts of a text that is JSON in the strict sense, and as the schema says."""
    return valid(json.loads(text, parse_constant=pytest.fail), name)
