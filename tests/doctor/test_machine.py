"""Reading the kernel's files: what stands there, what is missing, what is nonsense."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from server.doctor.machine import UNLIMITED, Machine, read
from tests.doctor.kernels import MIB, make

PAGE = 4096


def test_a_usual_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGESIZE": PAGE}[name])
    assert read(make(tmp_path, soft=1024, hard=524288)) == Machine(
        files_soft=1024,
        files_hard=524288,
        files_at_most=1048576,
        files_of_all=2000000,
        files_in_use=1000,
        memory_available=4096 * MIB,
        processors=4,
        accept_queue=4096,
        handshake_queue=2048,
        ports=(32768, 60999),
        tcp_memory=(90000 * PAGE, 120000 * PAGE, 180000 * PAGE),
        send_buffer=(4096, 16384, 4194304),
        receive_buffer=(4096, 131072, 6291456),
    )


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) == Machine()


def test_nonsense_is_as_good_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "nowhere").mkdir()
    names = ["proc/meminfo", "proc/self/limits", "proc/self/status", "proc/self/cgroup", "proc/sys/fs/nr_open"]
    names += ["proc/sys/fs/file-nr", "proc/sys/net/ipv4/tcp_mem", "proc/sys/net/ipv4/ip_local_port_range"]
    for text in ("\x00\xff", "one two", "-1", "1 2 3 4 5", "\n\n"):
        root = make(tmp_path / str(hash(text)), dict.fromkeys(names, text))
        seen = read(root)
        assert (seen.memory_available, seen.tcp_memory, seen.ports, seen.processors) == (None,) * 4, text


@pytest.mark.parametrize(
    ("soft", "hard", "limits"),
    [("unlimited", "unlimited", (UNLIMITED, UNLIMITED)), (1024, "unlimited", (1024, UNLIMITED)), ("?", 5, (None, 5))],
)
def test_limits_of_open_files(
    tmp_path: Path, soft: object, hard: object, limits: tuple[int | None, int | None]
) -> None:
    seen = read(make(tmp_path, soft=soft, hard=hard))
    assert (seen.files_soft, seen.files_hard) == limits


@pytest.mark.parametrize(("listed", "number"), [("0", 1), ("0-3", 4), ("0,2", 2), ("0-1,4-7,9", 7)])
def test_processors_that_may_be_used(tmp_path: Path, listed: str, number: int) -> None:
    assert read(make(tmp_path, {"proc/self/status": f"Cpus_allowed_list:\t{listed}\n"})).processors == number


def test_another_process_has_limits_of_its_own(tmp_path: Path) -> None:
    root = make(tmp_path, {"proc/77/limits": "Max open files   256   512   files"})
    seen = read(root, pid=77)
    assert (seen.files_soft, seen.files_hard) == (256, 512)
    assert seen.files_of_all == 2000000


def test_this_machine() -> None:
    seen = read()
    assert (seen.files_soft, seen.files_hard) == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert seen.memory_available
    assert seen.memory_available > 0


# Control groups

V2 = {"proc/self/cgroup": "0::/system.slice/stentor.service\n", "sys/fs/cgroup/cgroup.controllers": "cpu memory\n"}
HERE = "sys/fs/cgroup/system.slice/stentor.service"


def test_no_group_limits_anything(tmp_path: Path) -> None:
    root = make(tmp_path, V2 | {f"{HERE}/memory.max": "max\n", f"{HERE}/cpu.max": "max 100000\n"})
    seen = read(root)
    assert (seen.memory_left_by_group, seen.processor_quota) == (None, None)


def test_a_group_of_version_2(tmp_path: Path) -> None:
    files = {
        f"{HERE}/memory.max": f"{512 * MIB}\n",
        f"{HERE}/memory.current": f"{200 * MIB}\n",
        f"{HERE}/memory.stat": f"anon {100 * MIB}\nfile {100 * MIB}\ninactive_file {50 * MIB}\n",
        f"{HERE}/cpu.max": "150000 100000\n",
    }
    seen = read(make(tmp_path, V2 | files))
    assert (seen.memory_left_by_group, seen.processor_quota) == (362 * MIB, 1.5)


def test_the_groups_above_bind_too(tmp_path: Path) -> None:
    files = {
        f"{HERE}/memory.max": f"{512 * MIB}\n",
        f"{HERE}/memory.current": "0\n",
        "sys/fs/cgroup/system.slice/memory.max": f"{1024 * MIB}\n",
        "sys/fs/cgroup/system.slice/memory.current": f"{1000 * MIB}\n",
        "sys/fs/cgroup/system.slice/cpu.max": "50000 100000\n",
    }
    seen = read(make(tmp_path, V2 | files))
    assert (seen.memory_left_by_group, seen.processor_quota) == (24 * MIB, 0.5)


def test_in_a_container_the_root_is_the_group(tmp_path: Path) -> None:
    # The path is that of the machine, and leads to nowhere in here.
    files = {
        "proc/self/cgroup": "0::/../kubepods/pod1/abc\n",
        "sys/fs/cgroup/memory.max": f"{256 * MIB}\n",
        "sys/fs/cgroup/memory.current": f"{300 * MIB}\n",
        "sys/fs/cgroup/cpu.max": "200000 100000",
    }
    seen = read(make(tmp_path, files))
    assert (seen.memory_left_by_group, seen.processor_quota) == (0, 2.0)


def test_groups_of_version_1(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n1:name=systemd:/\n0::/\n",
        "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": f"{128 * MIB}\n",
        "sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes": f"{64 * MIB}\n",
        "sys/fs/cgroup/memory/docker/x/memory.stat": f"total_inactive_file {MIB}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "250000\n",
        "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    seen = read(make(tmp_path, files))
    assert (seen.memory_left_by_group, seen.processor_quota) == (65 * MIB, 2.5)


def test_the_firewall(tmp_path: Path) -> None:
    files = {
        "proc/sys/net/netfilter/nf_conntrack_max": "65536\n",
        "proc/sys/net/netfilter/nf_conntrack_count": "12\n",
    }
    seen = read(make(tmp_path, files))
    assert (seen.tracked_at_most, seen.tracked) == (65536, 12)
