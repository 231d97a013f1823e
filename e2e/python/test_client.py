"""The official Python client against a cluster: typed, dynamic, and strict about every kind.

Run by e2e/tests/python.rs with KUBECONFIG and TESTDATA set. The client's models are generated from upstream's
OpenAPI and refuse answers that lack a required field or have one of the wrong type.
"""

import os
import re
import threading
import unittest
from pathlib import Path

import yaml
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException

NAMESPACE = "python"
PATIENCE = 60


def snake(kind):
    """ConfigMap -> config_map, as the client names its methods."""
    kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", kind).lower()


def pod(name, command, **spec):
    container = client.V1Container(name="main", image="busybox", command=command)
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name=name, labels={"app": name}),
        spec=client.V1PodSpec(
            containers=[container], restart_policy="Never", termination_grace_period_seconds=0, **spec
        ),
    )


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data=data)


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        config.load_kube_config()
        cls.core = client.CoreV1Api()
        cls.apps = client.AppsV1Api()
        cls.batch = client.BatchV1Api()
        cls.rbac = client.RbacAuthorizationV1Api()
        try:
            cls.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
        except ApiException as error:
            if error.status != 409:
                raise

    def until(self, listing, name, done):
        """Watches from the start until `done` of the object's last state."""
        for event in watch.Watch().stream(
            listing, NAMESPACE, field_selector=f"metadata.name={name}", timeout_seconds=PATIENCE
        ):
            if done(event):
                return event["object"]
        self.fail(f"{name} never got there")

    def refused(self, status, call, *args, **options):
        with self.assertRaises(ApiException) as caught:
            call(*args, **options)
        self.assertEqual(caught.exception.status, status, caught.exception)
        return caught.exception


class Typed(Case):
    def test_config_maps_from_creation_to_deletion(self):
        made = self.core.create_namespaced_config_map(NAMESPACE, config_map("life", colour="red"))
        self.assertEqual(made.data, {"colour": "red"})
        self.assertEqual(self.core.read_namespaced_config_map("life", NAMESPACE).metadata.uid, made.metadata.uid)
        self.refused(409, self.core.create_namespaced_config_map, NAMESPACE, config_map("life"))
        made.data["size"] = "3"
        replaced = self.core.replace_namespaced_config_map("life", NAMESPACE, made)
        self.assertEqual(replaced.data["size"], "3")
        self.refused(409, self.core.replace_namespaced_config_map, "life", NAMESPACE, made)
        dry = self.core.create_namespaced_config_map(NAMESPACE, config_map("dry"), dry_run="All")
        self.assertTrue(dry.metadata.uid)
        self.refused(404, self.core.read_namespaced_config_map, "dry", NAMESPACE)
        gone = self.core.delete_namespaced_config_map("life", NAMESPACE)
        self.assertEqual(gone["status"], "Success")
        missing = self.refused(404, self.core.read_namespaced_config_map, "life", NAMESPACE)
        self.assertIn("not found", missing.body)

    def test_patches_of_each_type(self):
        self.core.create_namespaced_config_map(NAMESPACE, config_map("patched", a="1", b="2"))
        patch = lambda body, kind, **options: self.core.patch_namespaced_config_map(
            "patched", NAMESPACE, body, _content_type=kind, **options
        ).data
        self.assertEqual(patch({"data": {"a": None}}, "application/merge-patch+json"), {"b": "2"})
        json_patch = [{"op": "add", "path": "/data/c", "value": "3"}]
        self.assertEqual(patch(json_patch, "application/json-patch+json"), {"b": "2", "c": "3"})
        replaced = {"data": {"$patch": "replace", "d": "4"}}
        self.assertEqual(patch(replaced, "application/strategic-merge-patch+json"), {"d": "4"})
        applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "patched"}, "data": {"d": "5"}}
        kind = "application/apply-patch+yaml"
        conflict = self.refused(409, patch, applied, kind, field_manager="python")
        self.assertIn(".data.d", conflict.body)
        self.assertEqual(patch(applied, kind, field_manager="python", force=True), {"d": "5"})

    def test_pages_and_selectors(self):
        for number in range(5):
            one = config_map(f"page-{number}")
            one.metadata.labels = {"page": "even" if number % 2 == 0 else "odd"}
            self.core.create_namespaced_config_map(NAMESPACE, one)
        names, token = [], None
        while True:
            page = self.core.list_namespaced_config_map(
                NAMESPACE, label_selector="page", limit=2, _continue=token
            )
            names += [item.metadata.name for item in page.items]
            token = page.metadata._continue
            if not token:
                break
        self.assertEqual(names, [f"page-{number}" for number in range(5)])
        odd = self.core.list_namespaced_config_map(NAMESPACE, label_selector="page in (odd)")
        self.assertEqual(len(odd.items), 2)
        self.core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="page")
        self.assertEqual(self.core.list_namespaced_config_map(NAMESPACE, label_selector="page").items, [])

    def test_a_watch_from_a_revision_sees_what_follows(self):
        start = self.core.list_namespaced_secret(NAMESPACE).metadata.resource_version
        self.core.create_namespaced_secret(
            NAMESPACE, client.V1Secret(metadata=client.V1ObjectMeta(name="watched"), string_data={"a": "b"})
        )
        self.core.delete_namespaced_secret("watched", NAMESPACE)
        seen = []
        watching = watch.Watch()
        for event in watching.stream(
            self.core.list_namespaced_secret, NAMESPACE, resource_version=start, timeout_seconds=PATIENCE
        ):
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                watching.stop()
        self.assertEqual(seen, [("ADDED", "watched"), ("DELETED", "watched")])

    def test_a_pod_runs_and_tells(self):
        self.core.create_namespaced_pod(NAMESPACE, pod("talks", ["sh", "-c", "echo one; echo two; exit 3"]))
        ended = self.until(
            self.core.list_namespaced_pod, "talks", lambda event: event["object"].status.phase == "Failed"
        )
        status = ended.status.container_statuses[0]
        self.assertEqual(status.state.terminated.exit_code, 3)
        log = self.core.read_namespaced_pod_log("talks", NAMESPACE)
        self.assertEqual(log, "one\ntwo\n")
        self.assertEqual(self.core.read_namespaced_pod_log("talks", NAMESPACE, tail_lines=1), "two\n")
        followed = list(watch.Watch().stream(self.core.read_namespaced_pod_log, "talks", NAMESPACE))
        self.assertEqual(followed, ["one", "two"])
        deleted = self.core.delete_namespaced_pod("talks", NAMESPACE, grace_period_seconds=0)
        self.assertIsInstance(deleted, client.V1Pod)

    def test_a_deployment_is_rolled_out_scaled_and_deleted_with_its_pods(self):
        template = pod("web", ["sleep", "3600"])
        template.spec.restart_policy = "Always"
        deployment = client.V1Deployment(
            metadata=client.V1ObjectMeta(name="web"),
            spec=client.V1DeploymentSpec(
                replicas=1,
                selector=client.V1LabelSelector(match_labels={"app": "web"}),
                template=client.V1PodTemplateSpec(
                    metadata=client.V1ObjectMeta(labels={"app": "web"}), spec=template.spec
                ),
            ),
        )
        self.apps.create_namespaced_deployment(NAMESPACE, deployment)
        available = lambda count: lambda event: event["object"].status.available_replicas == count
        self.until(self.apps.list_namespaced_deployment, "web", available(1))
        scale = self.apps.read_namespaced_deployment_scale("web", NAMESPACE)
        scale.spec.replicas = 2
        self.apps.replace_namespaced_deployment_scale("web", NAMESPACE, scale)
        self.until(self.apps.list_namespaced_deployment, "web", available(2))
        self.assertEqual(self.apps.read_namespaced_deployment_status("web", NAMESPACE).status.replicas, 2)
        self.apps.delete_namespaced_deployment(
            "web", NAMESPACE, body=client.V1DeleteOptions(propagation_policy="Foreground")
        )
        self.until(
            self.apps.list_namespaced_deployment, "web", lambda event: event["type"] == "DELETED"
        )
        self.assertEqual(self.core.list_namespaced_pod(NAMESPACE, label_selector="app=web").items, [])

    def test_a_job_completes(self):
        template = client.V1PodTemplateSpec(spec=pod("sum", ["true"]).spec)
        job = client.V1Job(metadata=client.V1ObjectMeta(name="sum"), spec=client.V1JobSpec(template=template))
        self.batch.create_namespaced_job(NAMESPACE, job)
        done = self.until(
            self.batch.list_namespaced_job, "sum", lambda event: event["object"].status.succeeded == 1
        )
        self.assertIn("Complete", [condition.type for condition in done.status.conditions])
        self.batch.delete_namespaced_job("sum", NAMESPACE, propagation_policy="Background")

    def test_rights_and_who_one_is(self):
        role = client.V1Role(
            metadata=client.V1ObjectMeta(name="reader"),
            rules=[client.V1PolicyRule(api_groups=[""], resources=["pods"], verbs=["get"])],
        )
        self.rbac.create_namespaced_role(NAMESPACE, role)
        review = client.V1SubjectAccessReview(
            spec=client.V1SubjectAccessReviewSpec(
                user="jane",
                resource_attributes=client.V1ResourceAttributes(verb="get", resource="pods", namespace=NAMESPACE),
            )
        )
        answer = client.AuthorizationV1Api().create_subject_access_review(review)
        self.assertFalse(answer.status.allowed)
        me = client.AuthenticationV1Api().create_self_subject_review(client.V1SelfSubjectReview())
        self.assertIn("system:masters", me.status.user_info.groups)
        token = self.core.create_namespaced_service_account_token(
            "default", NAMESPACE, client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
        )
        self.assertEqual(token.status.token.count("."), 2)

    def test_an_eviction(self):
        self.core.create_namespaced_pod(NAMESPACE, pod("evicted", ["sleep", "3600"], scheduler_name="nobody"))
        eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="evicted"))
        self.core.create_namespaced_pod_eviction("evicted", NAMESPACE, eviction)
        self.refused(404, self.core.read_namespaced_pod, "evicted", NAMESPACE)

    def test_what_is_wrong_is_named(self):
        wrong = config_map("Wrong Name")
        body = self.refused(422, self.core.create_namespaced_config_map, NAMESPACE, wrong).body
        self.assertIn("metadata.name", body)
        patch, options = {"dota": {}}, {"field_validation": "Strict"}
        body = self.refused(
            400, self.core.patch_namespaced_config_map, "kube-root-ca.crt", NAMESPACE, patch, **options
        ).body
        self.assertIn("unknown field", body)

    def test_versions_and_groups(self):
        self.assertEqual(client.VersionApi().get_code().major, "1")
        groups = [group.name for group in client.ApisApi().get_api_versions().groups]
        self.assertIn("apps", groups)
        resources = {resource.name for resource in self.core.get_api_resources().resources}
        self.assertLessEqual({"pods", "pods/log", "pods/eviction", "configmaps"}, resources)
        self.assertEqual(client.CoreApi().get_api_versions().versions, ["v1"])


class Scheduler(Case):
    """A scheduler of a user's own, as the client's documentation shows how to write one."""

    def test_a_pod_is_bound_by_the_client_and_runs(self):
        own = pod("bound", ["true"], scheduler_name="python")
        self.core.create_namespaced_pod(NAMESPACE, own)
        for event in watch.Watch().stream(
            self.core.list_namespaced_pod,
            NAMESPACE,
            field_selector="spec.schedulerName=python,spec.nodeName=",
            timeout_seconds=PATIENCE,
        ):
            self.bind(event["object"].metadata, self.core.list_node().items[0].metadata.name)
            break
        ended = self.until(
            self.core.list_namespaced_pod, "bound", lambda event: event["object"].status.phase == "Succeeded"
        )
        scheduled = next(condition for condition in ended.status.conditions if condition.type == "PodScheduled")
        self.assertEqual(scheduled.status, "True")
        again = self.refused(409, self.bind, ended.metadata, "elsewhere")
        self.assertIn("already assigned to node", again.body)

    def bind(self, pod, node):
        binding = client.V1Binding(
            metadata=client.V1ObjectMeta(name=pod.name, uid=pod.uid),
            target=client.V1ObjectReference(api_version="v1", kind="Node", name=node),
        )
        # The client reads the answer, a Status, as a Binding, which must have a target.
        self.core.create_namespaced_binding(NAMESPACE, binding, _preload_content=False)


class EveryKind(Case):
    """Each kind is created, read, listed and deleted through its model."""

    def test_each_is_read_as_it_was_made(self):
        text = (Path(os.environ["TESTDATA"]) / "every-kind.yaml").read_text()
        text = text.replace("NAMESPACE", NAMESPACE).replace("ADDRESS", "200")
        documents = list(yaml.safe_load_all(text))
        for document in documents:
            with self.subTest(document["kind"]):
                utils.create_from_dict(client.ApiClient(), document, namespace=NAMESPACE)
                self.read_and_list(document)
        for document in reversed(documents):
            with self.subTest("delete " + document["kind"]):
                self.call("delete", document)

    def api(self, document):
        group, _, version = document["apiVersion"].rpartition("/")
        name = "".join(part.capitalize() for part in (group or "core").removesuffix(".k8s.io").split("."))
        return getattr(client, f"{name}{version.capitalize()}Api")()

    def call(self, verb, document):
        api, kind = self.api(document), snake(document["kind"])
        if hasattr(api, f"{verb}_namespaced_{kind}"):
            return getattr(api, f"{verb}_namespaced_{kind}")(document["metadata"]["name"], NAMESPACE)
        return getattr(api, f"{verb}_{kind}")(document["metadata"]["name"])

    def read_and_list(self, document):
        name = document["metadata"]["name"]
        self.assertEqual(self.call("read", document).metadata.name, name)
        api, kind = self.api(document), snake(document["kind"])
        namespaced = hasattr(api, f"list_namespaced_{kind}")
        listed = getattr(api, f"list_namespaced_{kind}")(NAMESPACE) if namespaced else getattr(api, f"list_{kind}")()
        self.assertIn(name, [item.metadata.name for item in listed.items])


class Custom(Case):
    GROUP = "zoo.example.com"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        schema = {
            "type": "object",
            "properties": {
                "spec": {"type": "object", "properties": {"colour": {"type": "string", "default": "green"}}},
                "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
            },
        }
        version = {
            "name": "v1",
            "served": True,
            "storage": True,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": schema},
        }
        definition = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"cats.{cls.GROUP}"},
            "spec": {
                "group": cls.GROUP,
                "scope": "Namespaced",
                "names": {"plural": "cats", "singular": "cat", "kind": "Cat"},
                "versions": [version],
            },
        }
        extensions = client.ApiextensionsV1Api()
        extensions.create_custom_resource_definition(definition)
        for event in watch.Watch().stream(
            extensions.list_custom_resource_definition,
            field_selector=f"metadata.name=cats.{cls.GROUP}",
            timeout_seconds=PATIENCE,
        ):
            conditions = event["object"].status.conditions or [] if event["object"].status else []
            if any(condition.type == "Established" and condition.status == "True" for condition in conditions):
                return
        raise AssertionError("the definition was never established")

    def test_custom_objects(self):
        api = client.CustomObjectsApi()
        where = (self.GROUP, "v1", NAMESPACE, "cats")
        cat = {"apiVersion": f"{self.GROUP}/v1", "kind": "Cat", "metadata": {"name": "tom"}, "spec": {}}
        self.assertEqual(api.create_namespaced_custom_object(*where, cat)["spec"]["colour"], "green")
        patched = api.patch_namespaced_custom_object(*where, "tom", {"spec": {"colour": "grey"}})
        self.assertEqual(patched["metadata"]["generation"], 2)
        status = api.patch_namespaced_custom_object_status(*where, "tom", {"status": {"phase": "asleep"}})
        self.assertEqual((status["status"]["phase"], status["metadata"]["generation"]), ("asleep", 2))
        self.assertEqual(len(api.list_namespaced_custom_object(*where)["items"]), 1)
        self.refused(422, api.patch_namespaced_custom_object, *where, "tom", {"spec": {"colour": 3}})
        self.assertEqual(api.delete_namespaced_custom_object(*where, "tom")["status"], "Success")

    def test_the_dynamic_client_discovers_everything(self):
        cluster = dynamic.DynamicClient(client.ApiClient())
        maps = cluster.resources.get(api_version="v1", kind="ConfigMap")
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dynamic"}, "data": {"a": "1"}}
        maps.create(body=body, namespace=NAMESPACE)
        body["data"]["a"] = "2"
        applied = maps.server_side_apply(
            body=body, namespace=NAMESPACE, field_manager="python", force_conflicts=True
        )
        self.assertEqual(applied.data.a, "2")
        patched = maps.patch(
            body={"data": {"b": "3"}}, name="dynamic", namespace=NAMESPACE, content_type="application/merge-patch+json"
        )
        self.assertEqual(patched.data.b, "3")
        self.assertEqual(maps.get(name="dynamic", namespace=NAMESPACE).data.a, "2")
        maps.delete(name="dynamic", namespace=NAMESPACE)
        with self.assertRaises(dynamic.exceptions.NotFoundError):
            maps.get(name="dynamic", namespace=NAMESPACE)

        cats = cluster.resources.get(api_version=f"{self.GROUP}/v1", kind="Cat")
        seen = []

        def look():
            for event in cats.watch(namespace=NAMESPACE, timeout=PATIENCE):
                seen.append((event["type"], event["object"].metadata.name))
                if event["type"] == "DELETED" and event["object"].metadata.name == "felix":
                    return

        looking = threading.Thread(target=look)
        looking.start()
        felix = {"apiVersion": f"{self.GROUP}/v1", "kind": "Cat", "metadata": {"name": "felix"}, "spec": {}}
        # Until the watch has begun, each cat may have come and gone unseen.
        while looking.is_alive():
            cats.create(body=felix, namespace=NAMESPACE)
            cats.delete(name="felix", namespace=NAMESPACE)
            looking.join(0.2)
        self.assertIn(("DELETED", "felix"), seen)
        kinds = {resource.kind for found in cluster.resources for resource in found}
        self.assertLessEqual({"Pod", "Deployment", "Lease", "Cat"}, kinds)


if __name__ == "__main__":
    unittest.main(verbosity=2)
