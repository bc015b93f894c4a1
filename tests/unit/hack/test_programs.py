"""Where programs lie and how they are built; the Go toolchain's version."""

from pathlib import Path

import pytest

from localk8s import binaries, toolchain, versions
from localk8s.binaries import GoProgram
from localk8s.errors import ClusterError
from localk8s.paths import Layout, default_cache_root


def test_path_carries_name_and_version() -> None:
    etcd = versions.version("ETCD_VERSION")
    assert binaries.path_of(Layout(Path("/cache")), "etcd") == Path(f"/cache/bin/etcd-{etcd}/etcd")


def test_an_unknown_program_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ClusterError, match="kube-apiserver") as caught:
        binaries.path_of(Layout(Path("/cache")), "kube-apiservr")
    assert caught.value.exit_code == 2


def test_what_exists_is_not_built_again(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    target = binaries.path_of(layout, "etcd")
    target.parent.mkdir(parents=True)
    target.touch()
    assert binaries.ensure(layout, "etcd") == target
    assert not layout.locks.exists()


def test_kubernetes_knows_its_version() -> None:
    program = binaries.PROGRAMS["kubelet"]
    assert isinstance(program, GoProgram)
    flags = binaries.linker_flags(program, "1.36.3")
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3" in flags
    assert "gitMajor=1 " in flags
    assert "gitMinor=36 " in flags


def test_other_programs_need_no_version() -> None:
    program = binaries.PROGRAMS["etcd"]
    assert isinstance(program, GoProgram)
    assert binaries.linker_flags(program, "3.7.3") == "-s -w"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.26 linux/arm64", (1, 26, 0)),
        ("go version go1.27rc1 linux/amd64", (1, 27, 0)),
        ("go version devel linux/amd64", None),
    ],
)
def test_go_version(text: str, expected: tuple[int, int, int] | None) -> None:
    assert toolchain.parse_go_version(text) == expected


def test_cache_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.delenv("VLLM_OPERATOR_CACHE", raising=False)
    assert default_cache_root() == Path("/xdg/vllm-operator")
    monkeypatch.setenv("VLLM_OPERATOR_CACHE", "/elsewhere")
    assert default_cache_root() == Path("/elsewhere")
    monkeypatch.delenv("VLLM_OPERATOR_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_cache_root() == Path("/home/someone/.cache/vllm-operator")
