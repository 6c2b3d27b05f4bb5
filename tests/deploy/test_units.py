"""The systemd units, in a root folder of their own: systemd-analyze accepts them without a word,
they are hardened alike and well, and user and folders are made. No systemd has to run."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import promql

SYSTEMD = promql.DEPLOY / "systemd"
SERVICES = ("feiqian.service", "feiqian@.service", "feiqian-backup.service")
# 0 to 10, lower is better; 2 and less is "OK".
EXPOSURE_AT_MOST = 1.5


def hardening(unit):
    text = (SYSTEMD / unit).read_text()
    return text[text.index("# Hardening") :].split("\n\n")[0].strip()


class Units(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = pathlib.Path(tempfile.mkdtemp(prefix="feiqian-units."))
        cls.addClassCleanup(shutil.rmtree, cls.root)
        units = cls.root / "etc/systemd/system"
        units.mkdir(parents=True)
        for unit in [*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.timer")]:
            shutil.copy(unit, units)
        # The targets that units refer to, and programs to be found under their names.
        shutil.copytree("/lib/systemd/system", cls.root / "usr/lib/systemd/system", symlinks=True)
        (cls.root / "lib").symlink_to("usr/lib")
        for program in ("usr/local/bin/feiqian", "usr/bin/find", "bin/sh", "bin/kill"):
            path = cls.root / program
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#!/bin/sh\n")
            path.chmod(0o755)

    def run_in_root(self, *command):
        program, *arguments = command
        done = subprocess.run([program, f"--root={self.root}", *arguments], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr.strip()

    def test_systemd_accepts_them(self):
        names = ["feiqian.service", "feiqian-backup.service", "feiqian-backup.timer"]
        names += [f"feiqian@{role}.service" for role in ("gateway", "worker", "settlement", "console")]
        # Unknown keys are a warning only, so nothing at all may be said.
        self.assertEqual(self.run_in_root("systemd-analyze", "verify", *names), (0, "", ""))

    def test_systemd_would_object(self):
        wrong = self.root / "etc/systemd/system/wrong.service"
        wrong.write_text((SYSTEMD / "feiqian.service").read_text().replace("ProtectHome", "ProtectHme"))
        self.addCleanup(wrong.unlink)
        self.assertIn("ProtectHme", self.run_in_root("systemd-analyze", "verify", "wrong.service")[2])

    def test_they_are_hardened_alike(self):
        self.assertEqual({hardening(it) for it in SERVICES}, {hardening(SERVICES[0])})

    def test_little_is_exposed(self):
        for unit in SERVICES:
            name = unit.replace("@.", "@gateway.")
            threshold = str(int(EXPOSURE_AT_MOST * 10))
            code, out, err = self.run_in_root(
                "systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={threshold}", name
            )
            print(next(line for line in out.splitlines() if "Overall exposure" in line).strip())
            self.assertEqual(code, 0, err)

    def test_the_user_and_its_folders_are_made(self):
        code, _, err = self.run_in_root("systemd-sysusers", "--dry-run", str(SYSTEMD / "feiqian.sysusers"))
        self.assertEqual(code, 0, err)
        self.assertIn("Creating user 'feiqian'", err)
        if os.geteuid() == 0:  # Giving a folder away needs root.
            self.run_in_root("systemd-sysusers", str(SYSTEMD / "feiqian.sysusers"))
            self.assertEqual(self.run_in_root("systemd-tmpfiles", "--create", str(SYSTEMD / "feiqian.tmpfiles")), (0, "", ""))
            self.assertEqual((self.root / "etc/feiqian").stat().st_mode & 0o777, 0o750)
            self.assertEqual((self.root / "var/backups/feiqian").stat().st_mode & 0o777, 0o700)
