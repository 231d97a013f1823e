#!/usr/bin/env python3
"""Derives the three files beside this script from Kubernetes' published API description.

Source: the PyPI package `kubernetes-validate` 1.37.0 (Apache-2.0), file
`kubernetes_validate/kubernetes-json-schema/v1.37.0-local/_definitions.json`, which was made from the
OpenAPI document of Kubernetes 1.37 (Apache-2.0). That package rewrites optional types to [TYPE, "null"]
and adds an `enum` to `apiVersion` and `kind`; both are undone here.

usage: pip download kubernetes-validate==1.37.0 && unzip … && python3 derive.py PATH/_definitions.json

Results, all sorted by name:
  schemas.txt          one definition a line, without descriptions: what the server decodes with
  kinds.txt            GROUP/VERSION/KIND and its definition, one a line
  definitions.json.gz  `components.schemas` of OpenAPI v3 with descriptions: for clients only
"""
import gzip
import json
import os
import sys

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
    META + "Time": "date-time",
    META + "MicroTime": "date-time-micro",
}
# Written and read by code of their own in Kubernetes: any JSON inside.
FREE = {
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    META + "FieldsV1",
    META + "Patch",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
}
GVK = "x-kubernetes-group-version-kind"


def without_null(schema):
    """The schema with `type` as Kubernetes publishes it, recursively."""
    if isinstance(schema, list):
        return [without_null(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for key, value in schema.items():
        if key == "type" and isinstance(value, list):
            (value,) = [each for each in value if each != "null"]
        elif key == "properties":
            value = {name: without_null(each) for name, each in value.items()}
        else:
            value = without_null(value)
        result[key] = value
    return result


def clean(schema):
    schema = without_null(schema)
    for name in ("apiVersion", "kind"):
        schema.get("properties", {}).get(name, {}).pop("enum", None)
    return schema


def compact(name, schema):
    """What decoding and patching need, references by bare name."""
    if name in SCALARS:
        return {"format": SCALARS[name]}
    if name in FREE:
        return {"x-kubernetes-preserve-unknown-fields": True}
    return strip(schema)


def strip(schema):
    result = {}
    for key, value in schema.items():
        if key in ("description", "x-kubernetes-unions", GVK):
            continue
        if key == "$ref":
            value = value.removeprefix("#/$defs/")
        elif key == "properties":
            value = {name: strip(each) for name, each in value.items()}
        elif key in ("items", "additionalProperties"):
            value = strip(value)
        result[key] = value
    return result


def published(name, schema, top=True):
    """The form of OpenAPI v3: references wrapped in allOf, since siblings of $ref have no meaning there."""
    result = {}
    for key, value in schema.items():
        if key == "$ref":
            key, value = "allOf", [{"$ref": "#/components/schemas/" + value.removeprefix("#/$defs/")}]
        elif key == "properties":
            value = {prop: published(name, each, False) for prop, each in value.items()}
        elif key in ("items", "additionalProperties"):
            value = published(name, value, False)
        result[key] = value
    if top and name.endswith("intstr.IntOrString"):
        result["format"] = "int-or-string"
    return result


def dump(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def kinds(definitions):
    for name, schema in definitions.items():
        gvks = schema.get(GVK, [])
        # DeleteOptions and WatchEvent are claimed by every group; they belong to `meta`.
        for gvk in gvks if len(gvks) == 1 else []:
            yield f"{gvk['group']}/{gvk['version']}/{gvk['kind']} {name}\n"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        definitions = {name: clean(schema) for name, schema in sorted(json.load(file)["$defs"].items())}
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "schemas.txt"), "w", encoding="utf-8") as file:
        file.writelines(f"{name} {dump(compact(name, schema))}\n" for name, schema in definitions.items())
    with open(os.path.join(here, "kinds.txt"), "w", encoding="utf-8") as file:
        file.writelines(sorted(kinds(definitions)))
    text = dump({name: published(name, schema) for name, schema in definitions.items()})
    with open(os.path.join(here, "definitions.json.gz"), "wb") as file:
        file.write(gzip.compress(text.encode(), 9, mtime=0))


main()
