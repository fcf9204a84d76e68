#!/usr/bin/env python3
"""Holds the manifests of deploy/ against schemas.

    lint.py DEPLOY HERE             all manifests; prints what is wrong
    lint.py --extension-name FILE   of a Cluster, its extension: the folder that it is mounted at
    lint.py --settings FILE         of a Cluster, the lines of postgresql.conf that the operator
                                    makes of it; LD_LIBRARY_PATH as a comment

The schemas beside this file know the fields that the manifests use, and no others: a
misspelled one is found.  They were written after the documentation of CloudNativePG 1.28 and
Kubernetes, and stand for what no program here can check.
"""
import json
import os
import sys

import jsonschema
import yaml

MOUNTED = "/extensions/"


def documents(path):
    with open(path) as file:
        return [one for one in yaml.safe_load_all(file) if one]


def lint(deploy, here):
    with open(os.path.join(here, "manifests.schema.json")) as file:
        schemas = json.load(file)
    wrong = []
    kinds = []
    folder = os.path.join(deploy, "cloudnative-pg")
    for name in sorted(os.listdir(folder)):
        for one in documents(os.path.join(folder, name)) if name.endswith(".yaml") else []:
            kinds.append(one["kind"])
            schema = {"$ref": "#/definitions/" + one["kind"], "definitions": schemas["definitions"]}
            for error in jsonschema.Draft7Validator(schema).iter_errors(one):
                where = "/".join(str(step) for step in error.path)
                wrong.append(f"{name}: {where}: {error.message}")
    if sorted(kinds) != ["Cluster", "Database", "Secret"]:
        wrong.append(f"expected a Cluster, a Database and a Secret, not {kinds}")
    wrong += fit_together(folder) + compose(deploy)
    return wrong


def fit_together(folder):
    """What one manifest says of another."""
    cluster, = documents(os.path.join(folder, "cluster.yaml"))
    database, = documents(os.path.join(folder, "database.yaml"))
    secret, = documents(os.path.join(folder, "secret.yaml"))
    wrong = []
    if database["spec"]["cluster"]["name"] != cluster["metadata"]["name"]:
        wrong.append("database.yaml names another cluster")
    source = cluster["spec"]["projectedVolumeTemplate"]["sources"][0]["secret"]
    if source["name"] != secret["metadata"]["name"]:
        wrong.append("cluster.yaml mounts another secret")
    item = source["items"][0]
    if item["key"] not in secret["stringData"]:
        wrong.append("the secret has no such key")
    parameters = cluster["spec"]["postgresql"]["parameters"]
    if parameters["uncache.redis_password_file"] != "/projected/" + item["path"]:
        wrong.append("uncache.redis_password_file is not where the secret is mounted")
    return wrong


def compose(deploy):
    """What docker-compose does not look for: files that are not there."""
    folder = os.path.join(deploy, "docker")
    services = documents(os.path.join(folder, "compose.yaml"))[0]["services"]
    wrong = []
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith(".") and not os.path.exists(os.path.join(folder, source)):
                wrong.append(f"compose.yaml: {name} mounts {source}, which is not there")
        if "build" in service:
            context = os.path.join(folder, service["build"]["context"])
            if not os.path.exists(os.path.join(context, service["build"]["dockerfile"])):
                wrong.append(f"compose.yaml: {name} has no Dockerfile")
    return wrong


def settings(cluster):
    """As the operator does it: the folders of the image, relative to where it is mounted."""
    postgresql = cluster["spec"]["postgresql"]
    extension, = postgresql["extensions"]
    at = MOUNTED + extension["name"]
    controls = [f"{at}/{one}" for one in extension.get("extension_control_path", ["share"])]
    libraries = [f"{at}/{one}" for one in extension.get("dynamic_library_path", ["lib"])]
    lines = ["# LD_LIBRARY_PATH=" + ":".join(
        f"{at}/{one}" for one in extension.get("ld_library_path", []))]
    lines.append("extension_control_path = '%s'" % ":".join(["$system"] + controls))
    lines.append("dynamic_library_path = '%s'" % ":".join(["$libdir"] + libraries))
    preloaded = ",".join(postgresql["shared_preload_libraries"])
    lines.append(f"shared_preload_libraries = '{preloaded}'")
    lines += [f"{name} = '{value}'" for name, value in postgresql["parameters"].items()]
    return lines


def main(arguments):
    if arguments[0] == "--extension-name":
        cluster, = documents(arguments[1])
        print(cluster["spec"]["postgresql"]["extensions"][0]["name"])
        return 0
    if arguments[0] == "--settings":
        cluster, = documents(arguments[1])
        print("\n".join(settings(cluster)))
        return 0
    wrong = lint(*arguments)
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
