"""Rules and alerts: they ask for metrics that exist, say what people need, are tested in both
directions, and have their section in the runbook. That they fire is promtool's part."""

import re
import unittest

import yaml

import promql

LANGUAGES = ("runbook.md", "runbook.zh-CN.md")
ALERTS = {it["alert"]: it for it in promql.rules() if "alert" in it}


def sections(document):
    return re.findall(r"^## (.+)$", (promql.ROOT / "docs" / document).read_text(), re.M)


def expectations():
    """Alert -> what is expected of it: a list of lists of the labels of firing alerts."""
    found = {it: [] for it in ALERTS}
    for file in promql.RULES.parent.glob("*.test.yml"):
        for test in yaml.load(file.read_text(), yaml.CSafeLoader)["tests"]:
            for case in test["promql_expr_test"]:
                name = re.search(r'alertname=~?"([^"]+)"', case["expr"])
                for alert in ALERTS if name else ():
                    if re.fullmatch(name[1], alert):
                        samples = case.get("exp_samples") or []
                        found[alert].append([dict(re.findall(r'(\w+)="([^"]*)"', it["labels"])) for it in samples])
    return found


class Alerts(unittest.TestCase):
    def test_rules_ask_for_what_there_is(self):
        for rule in promql.rules():
            with self.subTest(rule.get("alert") or rule["record"]):
                self.assertEqual(promql.complaints(rule["expr"]), [])

    def test_a_wrong_name_would_be_found(self):
        for wrong, complaint in {
            "feiqian_store_upp == 0": "no metric feiqian_store_upp",
            "feiqian_store_commit_duration_seconds > 1": "no metric feiqian_store_commit_duration_seconds",
            'feiqian_refunds_total{status="closed"}': "feiqian_refunds_total has no label status",
            'feiqian_refunds_total{state=~"closed|lost"}': "feiqian_refunds_total has no state=lost",
            "sum by (chanel) (up)": "no label chanel",
        }.items():
            self.assertEqual(promql.complaints(wrong), [complaint])

    def test_each_says_what_people_need(self):
        wanted = {"summary", "description", "summary_zh", "description_zh", "runbook"}
        for name, alert in ALERTS.items():
            with self.subTest(name):
                self.assertIn(alert["labels"]["severity"], {"critical", "warning"})
                self.assertEqual(set(alert["annotations"]), wanted)
                self.assertEqual(alert["annotations"]["runbook"], f"docs/runbook.md#{name.lower()}")
                for key in ("summary_zh", "description_zh"):
                    self.assertRegex(alert["annotations"][key], "[\u4e00-\u9fff]")

    def test_each_fires_in_one_test_and_stays_silent_in_another(self):
        for name, cases in expectations().items():
            with self.subTest(name):
                self.assertTrue(any(cases), "no test in which it fires")
                self.assertFalse(all(cases), "no test in which it stays silent")

    def test_tests_evaluate_every_group_in_order(self):
        groups = [it["name"] for it in yaml.load(promql.RULES.read_text(), yaml.CSafeLoader)["groups"]]
        for file in promql.RULES.parent.glob("*.test.yml"):
            self.assertEqual(yaml.load(file.read_text(), yaml.CSafeLoader)["group_eval_order"], groups, file.name)

    def test_texts_use_labels_that_the_alert_has(self):
        for name, cases in expectations().items():
            has = set().union(*(labels for case in cases for labels in case))
            for key, text in ALERTS[name]["annotations"].items():
                with self.subTest(f"{name} {key}"):
                    self.assertLessEqual(set(re.findall(r"\$labels\.(\w+)", text)), has)

    def test_the_runbook_has_a_section_for_each_in_both_languages(self):
        for document in LANGUAGES:
            with self.subTest(document):
                # A heading's anchor is itself in lower case. Sorted: the order is the reader's.
                self.assertEqual(sorted(sections(document)), sorted(ALERTS))
        self.assertEqual(*map(sections, LANGUAGES))
