import pytest

from ebbflow.containers import container_id, container_runtime, parse_cgroups, pod_uid, short_id, systemd_unit

A, B = "a1" * 32, "0f" * 32


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/docker/{A}", A),
        (f"/system.slice/docker-{A}.scope", A),
        (f"/kubepods/burstable/pod2c48913c-b29f-11e7-9350-020968147796/{A}", A),
        (f"/kubepods.slice/kubepods-pod2c48.slice/cri-containerd-{A}.scope", A),
        (f"/system.slice/containerd.service/kubepods-besteffort-pod2c48.slice:cri-containerd:{A}", A),
        (f"/k8s.io/{A}", A),
        (f"/kubepods.slice/kubepods-pod2c48.slice/crio-{A}.scope", A),
        (f"/kubepods.slice/kubepods-pod2c48.slice/crio-conmon-{A}.scope", ""),
        (f"/machine.slice/libpod-{A}.scope", A),
        (f"/machine.slice/libpod-{A}.scope/container", A),
        (f"/machine.slice/libpod-conmon-{A}.scope", ""),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope", A),
        (f"/libpod_parent/libpod-{A}", A),
        (f"/ecs/cluster/55091c13-b8cf-4801-b527-f4601742204d/{A}", A),
        ("/ecs/55091c13b8cf4801b527f4601742204d-1234567890", "55091c13b8cf4801b527f4601742204d-1234567890"),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container", A),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{B}.slice/libpod-{A}.scope", A),
        (f"/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope", A),
        (f"/machine.slice/machine-libpod_pod_{B}.slice", ""),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope", A),
        (f"/system.slice/nerdctl-{A}.scope", A),
        (f"/default/{A}", A),
        (f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podX.slice/cri-containerd-{A}.scope", A),
        ("/lxc/web", "web"),
        ("/lxc.payload/web/system.slice/nginx.service", "web"),
        ("/lxc.payload.web-1", "web-1"),
        ("/lxc.monitor.web-1", ""),
        ("/machine.slice/systemd-nspawn@deb.service/payload", "deb"),
        ("/machine.slice/machine-deb.scope", "deb"),
        (f"/docker/{A}/docker/{B}", B),
        (f"/docker/{A}/system.slice/nginx.service", A),
        (f"/../cri-containerd-{A}.scope", A),
        ("/system.slice/nginx.service", ""),
        ("/user.slice/user-1000.slice/session-3.scope", ""),
        ("/", ""),
        ("", ""),
        (f"/{A[:63]}", ""),
        (f"/{A}0", ""),
        (f"/{A.upper()}", ""),
    ],
)
def test_container_id_of_each_runtime(path, expected):
    assert container_id(path) == expected


def test_parse_cgroups_version_2_only():
    found = parse_cgroups(f"0::/system.slice/docker-{A}.scope\n")
    assert (found.path, found.container_id) == (f"/system.slice/docker-{A}.scope", A)


def test_parse_cgroups_hybrid_prefers_version_2_then_systemd():
    found = parse_cgroups("3:memory:/mem\n1:name=systemd:/user.slice\n0::/\n")
    assert found.paths == ("/", "/user.slice", "/mem")
    assert found.path == "/user.slice"


def test_parse_cgroups_version_1_finds_container_in_any_hierarchy():
    found = parse_cgroups(f"9:name=systemd:/\n4:memory:/docker/{A}\n0::/\n")
    assert (found.path, found.container_id) == (f"/docker/{A}", A)


def test_parse_cgroups_path_with_colons_stays_whole():
    path = f"/system.slice/containerd.service/kubepods-podX.slice:cri-containerd:{A}"
    assert parse_cgroups(f"2:cpu:{path}").path == path


@pytest.mark.parametrize("text", ["", "nonsense\n", "1:2\n"])
def test_parse_cgroups_unreadable_is_empty(text):
    found = parse_cgroups(text)
    assert (found.path, found.paths, found.container_id) == ("", (), "")


def test_parse_cgroups_root_only_is_root():
    assert parse_cgroups("0::/\n").path == "/"


def test_short_id_cuts_ids_and_keeps_names():
    assert short_id(A) == "a1a1a1a1a1a1"
    assert short_id("a-container-with-a-long-name") == "a-container-with-a-long-name"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/docker/{A}", "docker"),
        (f"/system.slice/docker-{A}.scope", "docker"),
        (f"/kubepods.slice/kubepods-podX.slice/cri-containerd-{A}.scope", "containerd"),
        (f"/system.slice/containerd.service/kubepods-besteffort-podX.slice:cri-containerd:{A}", "containerd"),
        (f"/system.slice/nerdctl-{A}.scope", "containerd"),
        (f"/k8s.io/{A}", "containerd"),
        (f"/kubepods.slice/kubepods-podX.slice/crio-{A}.scope", "cri-o"),
        (f"/kubepods.slice/kubepods-podX.slice/crio-conmon-{A}.scope", ""),
        (f"/machine.slice/libpod-{A}.scope/container", "podman"),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope", "podman"),
        (f"/libpod_parent/libpod-{A}", "podman"),
        (f"/libpod_parent/{A}", "podman"),
        ("/lxc/web", "lxc"),
        ("/lxc.payload.web", "lxc"),
        ("/machine.slice/systemd-nspawn@deb.service/payload", "systemd-nspawn"),
        ("/ecs/55091c13b8cf4801b527f4601742204d-1234567890", "ecs"),
        (f"/kubepods/burstable/podX/{A}", ""),
        (f"/docker/{A}/crio-{B}.scope", "cri-o"),
        ("/system.slice/nginx.service", ""),
        ("/", ""),
    ],
)
def test_container_runtime_is_the_innermost_ones_and_empty_when_unsaid(path, expected):
    assert container_runtime(path) == expected


UID = "2c48913c-b29f-11e7-9350-020968147796"
SLICED = UID.replace("-", "_")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/kubepods/burstable/pod{UID}/{A}", UID),
        (f"/kubepods/pod{UID}", UID),
        (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICED}.slice", UID),
        (f"/kubepods.slice/kubepods-pod{SLICED}.slice/crio-{A}.scope", UID),
        (f"/kubelet.slice/kubelet-kubepods-besteffort-pod{SLICED}.slice/cri-containerd-{A}.scope", UID),
        (
            f"/system.slice/containerd.service/kubepods-besteffort-pod{SLICED}.slice:cri-containerd:{A}",
            UID,
        ),
        (f"/kubepods/besteffort/pod{'ab' * 16}/{A}", "ab" * 16),
        (f"/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope", ""),
        ("/system.slice/podman.service", ""),
        ("/kubepods.slice", ""),
        ("/", ""),
    ],
)
def test_pod_uid_of_both_cgroup_drivers(path, expected):
    assert pod_uid(path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/nginx.service/worker.scope", "nginx.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/system.slice/system-my\\x2djob.slice/my-job@1.service", "my-job@1.service"),
        ("/system.slice/dev-disk-by\\x2dlabel-swap.swap", "dev-disk-by-label-swap.swap"),
        (f"/system.slice/docker-{A}.scope", f"docker-{A}.scope"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        ("/user.slice/user-1000.slice/user@1000.service", "user@1000.service"),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", "init.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-7.scope", "app-firefox-7.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/db.service", "db.service"),
        ("/init.scope", "init.scope"),
        ("/machine.slice", "machine.slice"),
        (f"/docker/{A}/system.slice/nginx.service", ""),
        (f"/docker/{A}", ""),
        ("/", ""),
    ],
)
def test_systemd_unit_is_the_first_below_the_slices(path, expected):
    assert systemd_unit(path) == expected
