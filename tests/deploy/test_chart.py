"""The Helm chart, rendered by Helm's own library: every manifest against the schemas of Kubernetes,
the rules of a careful cluster, and values that must be refused. No cluster is asked.

ServiceMonitor and PrometheusRule are of the Prometheus operator and have no schema here; what they
carry is compared and given to promtool.
"""

import copy
import functools
import json
import re
import tomllib
import unittest

import helm_python
import kubernetes_validate
import yaml

import promql

CHART = promql.DEPLOY / "helm" / "feiqian"
# The oldest that the chart allows, and the newest.
KUBERNETES = ("1.30", "1.37")
VALUES = {
    "default": {},
    "one node, SQLite": {
        "store": {"kind": "sqlite", "sqlite": {"storageClass": "local-ssd"}},
        "publicUrl": "https://pay.example.com:8443",
    },
    "everything": {
        "image": {"tag": "1.2.3", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"pool": "payments"},
        "tolerations": [{"key": "payments", "operator": "Exists", "effect": "NoSchedule"}],
        "serviceAccount": {"annotations": {"example.com/role": "feiqian"}},
        "ingress": {"enabled": True, "annotations": {"a.example.com/b": "c"}, "consoleHost": "ops.example.com"},
        "networkPolicy": {"extraEgress": [{"to": [{"podSelector": {}}], "ports": [{"port": 4317}]}]},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "little: no bus, no console, no settlement, a database outside": {
        "bus": {"existingSecret": ""},
        "roles": {"console": {"enabled": False}, "settlement": {"enabled": False}},
        "networkPolicy": {"store": {"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "port": 6432}},
    },
    "no network policy": {"networkPolicy": {"enabled": False}},
}
RESOURCES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
# What must be refused, and a word of the refusal.
REFUSED = [
    ({"publicUrl": "http://pay.example.com"}, "publicUrl"),
    ({"publicUrl": "https://pay.example.com/"}, "publicUrl"),
    ({"image": {"tag": "latest"}}, "tag"),
    ({"image": {"repository": ""}}, "repository"),
    ({"keysSecret": ""}, "keysSecret"),
    ({"store": {"kind": "mysql"}}, "kind"),
    ({"store": {"existingSecret": ""}}, "existingSecret"),
    ({"store": {"password": "secret"}}, "password"),
    ({"store": {"kind": "sqlite", "sqlite": {"size": "much"}}}, "size"),
    ({"roles": {"gateway": {"replicas": {"min": 0}}}}, "min"),
    ({"roles": {"gateway": {"replicas": {"min": "2"}}}}, "min"),
    ({"roles": {"worker": {"replicas": {"min": 7}}}}, "min is above max"),
    ({"roles": {"worker": {"resources": {"limits": None}}}}, "limits"),
    ({"roles": {"worker": {"cpuPercent": 100}}}, "cpuPercent"),
    ({"roles": {"worker": {"enabled": False}}}, "enabled"),
    ({"roles": {"cashier": {"resources": RESOURCES}}}, "cashier"),
    ({"networkPolicy": {"clients": []}}, "clients"),
    ({"networkPolicy": {"outboundPorts": [70000]}}, "outboundPorts"),
    ({"ingress": {"consoleHost": "https://ops.example.com"}}, "consoleHost"),
    ({"ingress": {"enabled": True, "consoleHost": "ops.example.com"}, "roles": {"console": {"enabled": False}}}, "console"),
    ({"config": "[server]\n"}, "config"),
    ({"config": "[keys]\n[store]\npath = 'feiqian.db'\n"}, "remove [store]"),
    ({"config": "[server]\nlisten = '127.0.0.1:1'\n[keys]\n"}, "remove listen"),
    ({"replicas": 3}, "replicas"),
]

# Otherwise a megabyte of schemas is read again for every manifest.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


def setUpModule():
    global chart
    helm_python.disable_logging()
    chart = helm_python.Chart.load(str(CHART))
    unittest.addModuleCleanup(chart.close)


def render(values, **options):
    chart.validate_schema(values)
    files = chart.render(values, name=options.pop("name", "pay"), namespace="payments", **options)
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return [it for text in texts for it in yaml.load_all(text, yaml.CSafeLoader) if it]


def of(manifests, kind):
    return {it["metadata"]["name"]: it for it in manifests if it["kind"] == kind}


def pods(manifests):
    """Name -> (labels, specification) of what becomes a pod."""
    found = {**of(manifests, "Deployment"), **of(manifests, "Job")}
    return {name: (it["spec"]["template"]["metadata"]["labels"], it["spec"]["template"]["spec"]) for name, it in found.items()}


def selected(selector, labels):
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(it["key"]) in it["values"] for it in selector.get("matchExpressions", []))


def leaves(values, path=()):
    """The single values of values.yaml. A list is one; so is an empty map."""
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, values


def another(path, value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return value + [80 if path[-1] == "outboundPorts" else {"x": "y"}]
    if isinstance(value, dict):
        return {"x": "y"}
    special = {
        ("store", "kind"): "sqlite" if value == "postgresql" else "postgresql",
        ("image", "pullPolicy"): "Never",
        ("publicUrl",): "https://other.example.com",
        ("config",): value + "\n# another",
    }
    return special.get(path, "9" + value)


def merged(values, changes):
    result = copy.deepcopy(values)
    for key, value in changes.items():
        result[key] = merged(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


def for_each_set(test):
    @functools.wraps(test)
    def run(self):
        for name, values in VALUES.items():
            with self.subTest(name):
                test(self, render(values))

    return run


class Chart(unittest.TestCase):
    def test_helm_finds_nothing_to_object_to(self):
        report = helm_python.lint(str(CHART), strict=True)
        self.assertEqual(report["errors"], [])
        # 1 is information: that there is no icon.
        self.assertEqual([it for it in report["messages"] if it["severity"] > 1], [])

    def test_kubernetes_knows_every_field(self):
        kinds = set()
        for name, values in VALUES.items():
            for version in KUBERNETES:
                for it in render(values, is_upgrade=version == KUBERNETES[0]):
                    kinds.add(it["kind"])
                    if not it["apiVersion"].startswith("monitoring.coreos.com/"):
                        with self.subTest(f"{name}: {it['kind']} {it['metadata']['name']} in {version}"):
                            kubernetes_validate.validate(it, version, strict=True)
        self.assertEqual(
            kinds,
            {
                "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Ingress", "Job", "NetworkPolicy", "PersistentVolumeClaim",
                "PodDisruptionBudget", "PrometheusRule", "Service", "ServiceAccount", "ServiceMonitor",
            },
        )  # fmt: skip

    def test_what_must_be_refused_is(self):
        for values, word in REFUSED:
            with self.subTest(json.dumps(values)):
                with self.assertRaises(helm_python.HelmError) as refusal:
                    render(values)
                self.assertIn(word, str(refusal.exception))

    def test_every_value_changes_something(self):
        def rendered(values):
            try:
                return chart.render(values)
            except helm_python.HelmRenderError as refusal:  # To refuse it is to use it.
                return str(refusal)

        sets = {name: merged(chart.values, VALUES[name]) for name in ("one node, SQLite", "everything")}
        before = {name: rendered(values) for name, values in sets.items()}
        for path, _ in leaves(sets["everything"]):
            with self.subTest(".".join(path)):
                changed = []
                for name, values in sets.items():
                    values = copy.deepcopy(values)
                    parent = values
                    for key in path[:-1]:
                        parent = parent[key]
                    parent[path[-1]] = another(path, parent.get(path[-1], "x"))
                    changed.append(rendered(values) != before[name])
                self.assertIn(True, changed)

    def test_roles(self):
        def roles(values):
            return {name: it["spec"]["template"]["spec"]["containers"][0]["args"][-1] for name, it in of(render(values), "Deployment").items()}

        four = {f"pay-feiqian-{it}": it for it in ("gateway", "worker", "settlement", "console")}
        self.assertEqual(roles({}), four)
        self.assertEqual(roles(VALUES["one node, SQLite"]), {"pay-feiqian-all": "all"})
        little = VALUES["little: no bus, no console, no settlement, a database outside"]
        self.assertEqual(roles(little), {it: four[it] for it in ("pay-feiqian-gateway", "pay-feiqian-worker")})

    @for_each_set
    def test_pods_can_do_little(self, manifests):
        for name, (_, pod) in pods(manifests).items():
            self.assertIs(pod["automountServiceAccountToken"], False, name)
            self.assertIs(pod["securityContext"]["runAsNonRoot"], True, name)
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"}, name)
            for container in pod["containers"] + pod.get("initContainers", []):
                can = container["securityContext"]
                self.assertEqual(
                    (can["allowPrivilegeEscalation"], can["readOnlyRootFilesystem"], can["capabilities"]),
                    (False, True, {"drop": ["ALL"]}),
                    name,
                )
                self.assertIn("memory", container["resources"]["limits"], name)
                self.assertLessEqual({"cpu", "memory"}, set(container["resources"]["requests"]), name)

    @for_each_set
    def test_pods_leave_gracefully(self, manifests):
        drain = 10  # Seconds that the server gives to requests under way.
        for name, it in of(manifests, "Deployment").items():
            pod = it["spec"]["template"]["spec"]
            container = pod["containers"][0]
            sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            self.assertGreater(pod["terminationGracePeriodSeconds"], sleep + drain, name)
            probes = {key: container[key]["httpGet"] for key in ("startupProbe", "livenessProbe", "readinessProbe")}
            healthy, ready = {"path": "/healthz", "port": "admin"}, {"path": "/readyz", "port": "admin"}
            self.assertEqual(probes, {"startupProbe": healthy, "livenessProbe": healthy, "readinessProbe": ready}, name)

    @for_each_set
    def test_references_lead_somewhere(self, manifests):
        templates = pods(manifests)
        deployed = {name: templates[name][0] for name in of(manifests, "Deployment")}
        for name, it in of(manifests, "Deployment").items():
            self.assertTrue(selected(it["spec"]["selector"], deployed[name]), name)
        for name, it in of(manifests, "Service").items():
            behind = [pod for pod, labels in deployed.items() if it["spec"]["selector"].items() <= labels.items()]
            self.assertEqual(len(behind), len(deployed) if name.endswith("-metrics") else 1, name)
        for name, it in of(manifests, "PodDisruptionBudget").items():
            self.assertEqual([pod for pod in deployed if selected(it["spec"]["selector"], deployed[pod])], [name])
        for it in of(manifests, "HorizontalPodAutoscaler").values():
            self.assertIn(it["spec"]["scaleTargetRef"]["name"], deployed)
            self.assertNotIn("replicas", of(manifests, "Deployment")[it["spec"]["scaleTargetRef"]["name"]]["spec"])
        for it in of(manifests, "Ingress").values():
            for rule in it["spec"]["rules"]:
                self.assertIn(rule["http"]["paths"][0]["backend"]["service"]["name"], of(manifests, "Service"))
        for name, (_, pod) in templates.items():
            volumes = {it["name"] for it in pod["volumes"]}
            for container in pod["containers"] + pod.get("initContainers", []):
                self.assertEqual({it["name"] for it in container["volumeMounts"]}, volumes, name)
                mounted = [it["mountPath"] for it in container["volumeMounts"]]
                files = [it["value"] for it in container["env"] if it["name"].endswith(("_FILE", "__PATH"))]
                for file in files:
                    self.assertTrue(any(file.startswith(f"{it}/") for it in mounted), f"{name}: {file}")
            for volume in pod["volumes"]:
                if "configMap" in volume:
                    self.assertIn(volume["configMap"]["name"], of(manifests, "ConfigMap"), name)
                if "persistentVolumeClaim" in volume:
                    self.assertIn(volume["persistentVolumeClaim"]["claimName"], of(manifests, "PersistentVolumeClaim"))
            self.assertIn(pod["serviceAccountName"], {"default", *of(manifests, "ServiceAccount")})

    @for_each_set
    def test_the_configuration_is_toml_and_one(self, manifests):
        texts = {it["data"]["feiqian.toml"] for it in of(manifests, "ConfigMap").values()}
        self.assertEqual(len(texts), 1)
        self.assertLessEqual({"server", "keys"}, set(tomllib.loads(texts.pop())))

    @for_each_set
    def test_settings_given_twice_or_by_surprise(self, manifests):
        for name, (_, pod) in pods(manifests).items():
            # Otherwise a Service called feiqian-… becomes variables FEIQIAN_….
            self.assertIs(pod["enableServiceLinks"], False, name)
            names = [it["name"] for it in pod["containers"][0]["env"]]
            self.assertEqual(len(names), len(set(names)), name)

    @for_each_set
    def test_no_secret_is_in_the_chart(self, manifests):
        self.assertEqual(of(manifests, "Secret"), {})

    def test_secrets_are_named_by_the_values(self):
        used = {it["secret"]["secretName"] for _, pod in pods(render({})).values() for it in pod["volumes"] if "secret" in it}
        self.assertEqual(used, {"feiqian-keys", "feiqian-store", "feiqian-bus"})

    def test_migration_comes_before_the_new_version(self):
        manifests = render({}, is_upgrade=True)
        (job,) = of(manifests, "Job").values()
        self.assertIn("pre-upgrade", job["metadata"]["annotations"]["helm.sh/hook"])
        (container,) = job["spec"]["template"]["spec"]["containers"]
        self.assertEqual([*container["command"], container["args"][0]], ["feiqian", "migrate"])
        # Everything that it needs is a hook too, and comes earlier; the rest of the release is not there yet.
        needed = of(manifests, "ConfigMap")[job["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"]]
        self.assertEqual(needed["metadata"]["annotations"]["helm.sh/hook"], job["metadata"]["annotations"]["helm.sh/hook"])
        self.assertLess(int(needed["metadata"]["annotations"]["helm.sh/hook-weight"]), 0)
        # With SQLite the volume belongs to the pod, so it migrates before it serves.
        sqlite = render(VALUES["one node, SQLite"], is_upgrade=True)
        self.assertEqual(of(sqlite, "Job"), {})
        (deployment,) = of(sqlite, "Deployment").values()
        self.assertEqual(deployment["spec"]["strategy"], {"type": "Recreate"})
        self.assertEqual(deployment["spec"]["template"]["spec"]["initContainers"][0]["args"][0], "migrate")

    def test_the_network_is_closed_but_for_what_is_said(self):
        manifests = render({})
        policies = of(manifests, "NetworkPolicy").values()
        allowed = {}
        for name, (labels, _) in pods(manifests).items():
            mine = [it["spec"] for it in policies if selected(it["spec"]["podSelector"], labels)]
            self.assertEqual({kind for it in mine for kind in it["policyTypes"]}, {"Ingress", "Egress"}, name)
            for it in mine:
                for rule in it.get("ingress", []) + it.get("egress", []):
                    self.assertTrue(rule.get("from") or rule.get("to"), f"{name}: open to everybody")
                    self.assertTrue(rule["ports"], f"{name}: every port")
            allowed[labels["app.kubernetes.io/component"]] = (
                {port["port"] for it in mine for rule in it.get("ingress", []) for port in rule["ports"]},
                {port["port"] for it in mine for rule in it.get("egress", []) for port in rule["ports"]},
            )
        inside = {53, 5432, 4222}
        self.assertEqual(
            allowed,
            {
                "gateway": ({"admin", "http"}, inside | {80, 443}),
                "worker": ({"admin"}, inside | {80, 443}),
                "settlement": ({"admin"}, inside | {80, 443}),
                "console": ({"admin", "http"}, inside),
                "migrate": ({"admin"}, inside),
            },
        )
        self.assertEqual(of(render(VALUES["no network policy"]), "NetworkPolicy"), {})

    def test_the_rules_are_those_of_the_repository(self):
        manifests = render(VALUES["everything"])
        (rule,) = of(manifests, "PrometheusRule").values()
        self.assertEqual(rule["spec"], yaml.load(promql.RULES.read_text(), yaml.CSafeLoader))
        self.assertEqual(promql.check_rules(rule["spec"]["groups"]), "")
        # The alerts look for a job with `feiqian` in it: the name of the Service that is scraped.
        for name in ("pay", "feiqian", "a-release-with-a-name-as-long-as-helm-allows-x"):
            manifests = render(VALUES["everything"], name=name)
            (monitor,) = of(manifests, "ServiceMonitor").values()
            scraped = [
                it for it in of(manifests, "Service").values() if selected(monitor["spec"]["selector"], it["metadata"]["labels"])
            ]
            self.assertEqual(len(scraped), 1)
            self.assertRegex(scraped[0]["metadata"]["name"], r"feiqian.*-metrics$")
            for it in manifests:
                self.assertRegex(it["metadata"]["name"], re.compile(r"^[a-z0-9-]{1,63}$"))
