#!/usr/bin/env python3
"""Derives protobuf_fields.txt beside this script from Kubernetes' own sources.

Sources: the repositories kubernetes/api, kubernetes/apimachinery, kubernetes/apiextensions-apiserver and
kubernetes/kube-aggregator (Apache-2.0) at the commits of 1.37; their `generated.proto` say numbers and types,
the tags in their `types*.go` the names in JSON and what Go leaves out.

usage: python3 derive.py DIRECTORY-WITH-THE-CHECKOUTS

Result, sorted by name: a message a line, then its fields as NUMBER:NAME:[?][*|%]TYPE[:MESSAGE][:inline]
  ?       no pointer in Go, and taken for absent when it is zero or empty
  * %     a list, a map by text
  TYPE    s text, b boolean, i and l integers, d double, y bytes, m another message
  inline  its fields belong to the message around it
"""
import os
import re
import sys

SCALARS = {"string": "s", "bool": "b", "bytes": "y", "double": "d", "int64": "l", "int32": "i", "uint32": "i"}
HERE = os.path.dirname(os.path.abspath(__file__))
# The versions that are served.
SERVED = re.compile(r"/v\d+/|^scheduling.k8s.io/v1beta1/")
# Who may be sent to us besides kinds that have their own definition.
FURTHER = ["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", "io.k8s.apimachinery.pkg.runtime.TypeMeta"]


def files(root, wanted):
    for directory, _, names in sorted(os.walk(root)):
        for name in sorted(names):
            if re.fullmatch(wanted, name):
                with open(os.path.join(directory, name), encoding="utf-8") as file:
                    yield directory, file.read()


def definition(message):
    """The name of the OpenAPI definition."""
    name = message.replace("apiextensions_apiserver", "apiextensions-apiserver")
    return "io." + name.replace("kube_aggregator", "kube-aggregator").replace("k8s.io.", "k8s.", 1)


def messages(root):
    """Each message's package directory and fields: number to (name, type)."""
    found = {}
    for directory, text in files(root, r"generated\.proto"):
        text = re.sub(r"//.*", "", text)
        package = re.search(r"package ([\w.]+);", text).group(1)
        for name, body in re.findall(r"message (\w+) \{(.*?)\n\}", text, re.S):
            fields = re.findall(r"(repeated )?(map<\w+, [\w.]+>|[\w.]+) (\w+) = (\d+);", body)
            typed = {int(number): (field, kind(package, kind_, bool(many))) for many, kind_, field, number in fields}
            found[definition(f"{package}.{name}")] = (directory, name, typed)
    return found


def kind(package, name, many):
    if name.startswith("map<"):
        return "%" + kind(package, name[4:-1].split(",")[1].strip(), False)
    prefix = "*" if many else ""
    if name in SCALARS:
        return prefix + SCALARS[name]
    name = name.lstrip(".")
    return prefix + "m:" + definition(name if "." in name else f"{package}.{name}")


def tags(root):
    """By directory, type and number: name in JSON, whether it is inline, whether zero is left out."""
    found = {}
    for directory, text in files(root, r"types\w*\.go"):
        for name, body in re.findall(r"^type (\w+) struct \{\n(.*?)\n\}", text, re.S | re.M):
            for declared, tag in re.findall(r"^\t([\w.\[\]* ]+?)\s*`(.*)`", body, re.M):
                number = re.search(r'protobuf:"\w+,(\d+)', tag)
                json = re.search(r'json:"([^"]*)"', tag)
                if number and json:
                    field, *options = json.group(1).split(",")
                    pointer = declared.split()[-1].startswith("*")
                    omitted = not pointer and ("omitempty" in options or "omitzero" in options)
                    found[directory, name, int(number.group(1))] = (field, not field, omitted)
    return found


def line(fields, known, place):
    words = []
    for number, (name, kind_) in fields.items():
        json, inline, omitted = known.get((*place, number), (name, False, False))
        mark = "?" if omitted and (kind_ in SCALARS.values() or kind_.endswith(".IntOrString")) else ""
        words.append(f"{number}:{json or name}:{mark}{kind_}" + (":inline" if inline else ""))
    return " ".join(words)


def main():
    found, known = messages(sys.argv[1]), tags(sys.argv[1])
    with open(os.path.join(HERE, "../../api/data/kinds.txt"), encoding="utf-8") as file:
        kinds = [row.split()[1] for row in file if SERVED.search(row)]
    open_ = [name for name in kinds + FURTHER if name in found and not name.endswith("List")]
    result = {}
    while open_:
        name = open_.pop()
        if name in result:
            continue
        directory, short, fields = found[name]
        result[name] = line(fields, known, (directory, short))
        kinds_ = (kind_ for _, kind_ in fields.values())
        open_ += [kind_.split(":", 1)[1] for kind_ in kinds_ if "m:" in kind_]
    with open(os.path.join(HERE, "protobuf_fields.txt"), "w", encoding="utf-8") as file:
        file.writelines(f"{name} {fields}".rstrip() + "\n" for name, fields in sorted(result.items()))


main()
