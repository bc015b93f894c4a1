"""versions.env: its grammar, and that the go.mod files agree with it."""

import re

import pytest

from localk8s import binaries, versions
from localk8s.errors import ClusterError
from localk8s.paths import HACK_DIR

MODULES = HACK_DIR / "localk8s" / "gomod"


def test_parse_reads_what_bash_and_make_read() -> None:
    text = "# comment\n\nA=1.2.3\n  B_2=\"x\"\nC='y'\nD=\n"
    assert versions.parse(text) == {"A": "1.2.3", "B_2": "x", "C": "y", "D": ""}


@pytest.mark.parametrize("line", ["A = 1", "a=1", "export A=1", "A=1 2", "=1"])
def test_parse_names_the_bad_line(line: str) -> None:
    with pytest.raises(ClusterError, match=r"versions\.env:2"):
        versions.parse(f"X=1\n{line}\n")


def test_no_key_is_pinned_twice() -> None:
    keys = re.findall(r"^([A-Z0-9_]+)=", versions.VERSIONS_FILE.read_text(), re.MULTILINE)
    assert sorted(keys) == sorted(set(keys))


def test_unknown_key_is_named() -> None:
    with pytest.raises(ClusterError, match="NO_SUCH_VERSION"):
        versions.version("NO_SUCH_VERSION")


@pytest.mark.parametrize(
    ("module", "path", "key"),
    [
        ("kubernetes", "k8s.io/kubernetes", "KUBERNETES_VERSION"),
        ("etcd", "go.etcd.io/etcd/server/v3", "ETCD_VERSION"),
        ("nats", "github.com/nats-io/nats-server/v2", "NATS_SERVER_VERSION"),
        ("coredns", "github.com/coredns/coredns", "COREDNS_VERSION"),
        ("kind", "sigs.k8s.io/kind", "KIND_VERSION"),
    ],
)
def test_go_mod_requires_the_pinned_version(module: str, path: str, key: str) -> None:
    text = (MODULES / module / "go.mod").read_text()
    required = re.findall(rf"^(?:require)?\s+{re.escape(path)} v(\S+)", text, re.MULTILINE)
    assert required == [versions.version(key)]
    assert f"{path} v{versions.version(key)} h1:" in (MODULES / module / "go.sum").read_text()


def test_staging_modules_follow_kubernetes() -> None:
    replaced = re.findall(
        r"^\tk8s\.io/\S+ => k8s\.io/\S+ v(\S+)$", (MODULES / "kubernetes/go.mod").read_text(), re.MULTILINE
    )
    _, minor, patch = versions.version("KUBERNETES_VERSION").split(".")
    assert set(replaced) == {f"0.{minor}.{patch}"}
    assert len(replaced) > 25


def test_every_go_module_builds_with_the_oldest_go_that_is_accepted() -> None:
    minimum = tuple(int(part) for part in versions.version("GO_MINIMUM").split("."))
    for go_mod in MODULES.glob("*/go.mod"):
        found = re.search(r"^go (\S+)$", go_mod.read_text(), re.MULTILINE)
        assert found is not None
        assert tuple(int(part) for part in found[1].split(".")) <= minimum, go_mod


def test_every_program_has_a_pinned_version_and_every_tier_known_programs() -> None:
    for program in binaries.PROGRAMS.values():
        assert versions.version(program.version_key)
    for tier in binaries.TIERS.values():
        assert set(tier) <= set(binaries.PROGRAMS)
