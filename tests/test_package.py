"""What is installed elsewhere: sdist and wheel with their settings, and the image."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

import frcnn


def site_of(name):
    return str(Path(pytest.importorskip(name).__file__).resolve().parents[1])


@pytest.mark.slow
def test_sdist_and_wheel_work_in_a_clean_environment(tmp_path):
    command = [sys.executable, str(ROOT / "packaging" / "try_package.py"), "--dist", str(tmp_path)]
    for site in {site_of("hatchling"), site_of("torch")}:
        command += ["--borrow", site]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("works: frcnn-") == 2


def test_types_are_shipped():
    assert (Path(frcnn.__file__).parent / "py.typed").is_file()


def test_the_image_copies_what_the_build_needs():
    """hadolint is content with the file; it is not built here."""
    text = (ROOT / "Dockerfile").read_text()
    sources = [word for line in re.findall(r"^COPY (.+)$", text, re.M) for word in line.split()[:-1]]
    assert all((ROOT / name).exists() for name in sources)
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.M)
    assert set(sources) <= set(kept)
    build = (ROOT / "pyproject.toml").read_text()
    assert all(name in sources for name in re.findall(r'"(LICENSE|NOTICE)"', build))
    assert re.search(r"^USER \d+$", text, re.M)
