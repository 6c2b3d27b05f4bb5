"""The dashboard: every expression is PromQL and asks for metrics that exist, every metric is seen
somewhere, and panels do not lie on each other. What it looks like is not checked."""

import itertools
import json
import re
import unittest

import promql

DASHBOARD = json.loads((promql.DEPLOY / "grafana" / "feiqian.json").read_text())
PANELS = DASHBOARD["panels"]
VARIABLES = {it["name"] for it in DASHBOARD["templating"]["list"]} | {"__rate_interval"}


def expressions():
    """(where, PromQL), with variables as Grafana writes them."""
    for panel in PANELS:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for it in DASHBOARD["annotations"]["list"]:
        yield it["name"], it["expr"]
    for it in DASHBOARD["templating"]["list"]:
        if it["type"] == "query":
            yield it["name"], re.fullmatch(r"label_values\((.+), \w+\)", it["query"]["query"])[1]


class Dashboard(unittest.TestCase):
    def test_every_expression_is_promql(self):
        filled = [it.replace("$__rate_interval", "1m").replace("$", "") for _, it in expressions()]
        rules = [{"record": f"dashboard:{at}", "expr": it} for at, it in enumerate(filled)]
        self.assertEqual(promql.check_rules([{"name": "dashboard", "rules": rules}]), "")
        broken = [{"record": "dashboard:broken", "expr": "sum(rate(up[5m])"}]
        self.assertIn("parse error", promql.check_rules([{"name": "broken", "rules": broken}]))

    def test_expressions_ask_for_what_there_is(self):
        for where, expression in expressions():
            with self.subTest(where):
                self.assertEqual(promql.complaints(re.sub(r'=~"\$(\w+)"', '!=""', expression)), [])
                self.assertLessEqual(set(re.findall(r"\$(\w+)", expression)), VARIABLES)

    def test_a_panel_follows_the_job(self):
        for panel in PANELS:
            for target in panel.get("targets", []):
                with self.subTest(panel["title"]):
                    self.assertIn('job=~"$job"', target["expr"])

    def test_every_metric_is_seen_in_a_panel_or_a_rule(self):
        asked = [it for _, it in expressions()] + [it["expr"] for it in promql.rules()]
        seen = set().union(*map(promql.names, asked))
        for name, (kind, _) in promql.listed().items():
            self.assertIn(name + "_bucket" if kind == "histogram" else name, seen)

    def test_the_data_source_is_a_variable(self):
        for panel in PANELS:
            if panel["type"] != "row":
                self.assertEqual(panel["datasource"]["uid"], "${datasource}", panel["title"])

    def test_panels_do_not_lie_on_each_other(self):
        def cells(panel):
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
            return {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}

        for one, other in itertools.combinations(PANELS, 2):
            self.assertNotEqual(one["id"], other["id"])
            self.assertFalse(cells(one) & cells(other), f"{one['title']} and {other['title']}")
