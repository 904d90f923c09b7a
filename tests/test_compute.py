"""Devices, random streams, memory budgets."""

import json
import math
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft import _compute
from cellweft._compute import (
    PROCESS_BYTES,
    numpy_stream,
    parse_memory,
    process_bytes,
    resolve_device,
    resolve_devices,
    return_memory,
    stratified_rows,
    torch_stream,
)
from cellweft._errors import SettingError
from cellweft._text import human_bytes


class TestProcess:
    def test_the_memory_of_the_process_is_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        held = iter([3e9, 2e9, 5e9, 1e8])
        monkeypatch.setattr(_compute, "_least_resident", float("inf"))
        monkeypatch.setattr(_compute, "_resident_bytes", lambda: next(held))
        monkeypatch.setattr(_compute, "_WORK_BYTES", 1e8)
        # The process does not include planned memory, so later values are at most the first one.
        assert [process_bytes() for _ in range(4)] == [3.1e9, 2.1e9, 2.1e9, PROCESS_BYTES + 1e8]

    @pytest.mark.slow
    def test_the_smallest_accepted_budget_is_respected(self, tissue: Any, tmp_path: Path) -> None:
        tissue.sc.write_h5ad(tmp_path / "sc.h5ad")
        tissue.st.write_h5ad(tmp_path / "st.h5ad")

        def impute(memory: str) -> Any:
            names = ("sc.h5ad", "st.h5ad", "-o", "a.zarr", "--memory", memory, "--json", "--set", "steps=20")
            command = [sys.executable, "-m", "cellweft", "impute", *names]
            return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

        refused = impute("1MB")
        assert refused.returncode == 2
        least = re.search(r"expected at least ([0-9.]+) (MB|GB)", refused.stderr)
        assert least is not None
        budget = math.ceil(float(least[1]) * 1.01) * {"MB": 1, "GB": 1000}[least[2]]
        assert impute("470MB").returncode == 2
        made = impute(f"{budget}MB")
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["peak_bytes"] <= budget * 1e6


class TestDevice:
    def test_the_cpu_is_available(self) -> None:
        assert resolve_device("cpu") == torch.device("cpu")

    def test_auto_takes_the_best_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for cuda, mps, kind in [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]:
            monkeypatch.setattr(torch.cuda, "is_available", lambda is_there=cuda: is_there)
            monkeypatch.setattr(torch.backends.mps, "is_available", lambda is_there=mps: is_there)
            assert resolve_device("auto").type == kind

    @pytest.mark.parametrize("device", ["gpu", "", "tpu:0", "CPU", "cpu:x", "cpu:-1"])
    def test_an_unknown_device(self, device: str) -> None:
        with pytest.raises(
            SettingError, match=rf"^device: expected 'auto' or .*cpu.*, got '{device}'.*'auto'"
        ):
            resolve_device(device)

    def test_an_unavailable_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(SettingError, match=r"^device: .*got 'cuda:1'"):
            resolve_device("cuda:1")

    def test_a_gpu_beyond_the_last(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert resolve_device("cuda:1") == torch.device("cuda:1")
        with pytest.raises(SettingError, match=r"^device: .*got 'cuda:2'"):
            resolve_device("cuda:2")


class TestDevices:
    @pytest.fixture
    def two_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    @pytest.mark.parametrize("device", ["cpu", "auto"])
    def test_a_single_device(self, device: str) -> None:
        assert resolve_devices(device) == (resolve_device(device),)

    def test_several_devices_in_their_order(self, two_gpus: None) -> None:
        expected = torch.device("cuda:1"), torch.device("cuda:0")
        assert resolve_devices("cuda:1,cuda:0") == resolve_devices("cuda:1, cuda:0") == expected

    def test_all_means_all_gpus(self, two_gpus: None) -> None:
        assert resolve_devices("all") == (torch.device("cuda:0"), torch.device("cuda:1"))

    def test_all_without_gpus_is_the_best_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert resolve_devices("all") == (resolve_device("auto"),)

    @pytest.mark.parametrize("device", ["cpu,", ",cpu", "cpu,abacus", "cpu;cpu", "all,cpu", ""])
    def test_an_invalid_list_of_devices(self, device: str) -> None:
        with pytest.raises(SettingError, match=r"^device: expected 'auto' or a device of this machine"):
            resolve_devices(device)

    def test_devices_of_several_kinds_are_refused(self, two_gpus: None) -> None:
        with pytest.raises(
            SettingError, match=r"^device: expected devices of one kind, .*got 'cuda:0,cpu'.*'all'"
        ):
            resolve_devices("cuda:0,cpu")


class TestStreams:
    def test_the_stream_depends_on_seed_and_stage(self) -> None:
        first, again, other_seed, other_stage = (
            numpy_stream(seed, stage).random(4) for seed, stage in [(0, "a"), (0, "a"), (1, "a"), (0, "b")]
        )
        assert (first == again).all()
        assert not (first == other_seed).any()
        assert not (first == other_stage).any()

    def test_the_stream_of_torch_depends_on_seed_and_stage(self) -> None:
        first, again, other = (
            torch.rand(4, generator=torch_stream(seed, "a")).tolist() for seed in (0, 0, 1)
        )
        assert first == again
        assert first != other

    def test_the_stream_is_the_same_on_every_machine(self) -> None:
        # Python's own hash of a text changes from run to run, so the stage is hashed with CRC-32.
        assert numpy_stream(0, "stimpute.start").integers(1000, size=4).tolist() == [181, 749, 596, 988]

    def test_global_random_states_are_not_changed(self) -> None:
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        numpy_stream(0, "a").random(3)
        torch.rand(3, generator=torch_stream(0, "a"))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


class TestMemory:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("4 GB", 4 * 10**9),
            ("4gb", 4 * 10**9),
            (" 1.5 MB ", 1_500_000),
            (".5KB", 500),
            ("512 MiB", 512 * 2**20),
            ("2 GiB", 2**31),
            ("4G", 4 * 10**9),
            ("4Gi", 4 * 2**30),
            ("1 TB", 10**12),
            ("3000000", 3_000_000),
            ("300 B", 300),
            (10**9, 10**9),
        ],
    )
    def test_sizes(self, text: str | int, size: int) -> None:
        assert parse_memory(text) == size

    def test_few_bytes_need_their_unit(self) -> None:
        for memory in (3, "4", "1.5", 999_999):
            with pytest.raises(
                SettingError, match=r"^memory: expected a size .* without a unit.*Write the unit"
            ):
                parse_memory(memory)

    @pytest.mark.parametrize(
        "text", ["", "much", "-1 GB", "0", "0 GB", "4 PB", "GB", "4 GB!", "1,5 GB", "nan"]
    )
    def test_invalid_sizes_are_refused(self, text: str) -> None:
        with pytest.raises(SettingError, match=rf"^memory: expected a size such as '4 GB'.*got '{text}'"):
            parse_memory(text)

    @pytest.mark.parametrize(
        ("size", "text"),
        [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1 KB"),
            (999_400, "999 KB"),
            (999_900, "1 MB"),
            (1_234_567, "1.23 MB"),
            (4e9, "4 GB"),
            (2.5e12, "2.5 TB"),
        ],
    )
    def test_sizes_are_written_with_units(self, size: float, text: str) -> None:
        assert human_bytes(size) == text

    @settings(max_examples=25, deadline=None)
    @given(size=st.integers(1, 10**14))
    def test_written_sizes_are_read_back_within_three_digits(self, size: int) -> None:
        assert parse_memory(human_bytes(size)) == pytest.approx(size, rel=0.005)

    @pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has malloc_trim")
    def test_free_memory_is_returned_to_the_system(self) -> None:
        def held() -> int:
            lines = Path("/proc/self/status").read_text().splitlines()
            return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

        blocks = [bytes([1]) * 100_000 for _ in range(2000)]
        kept = blocks[::20]  # spread over the heap, so that its end is not free
        del blocks
        before = held()
        return_memory()
        assert before - held() > 100_000_000
        assert len(kept) == 100

    def test_on_other_systems_it_does_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "platform", "win32")
        return_memory()


class TestStratifiedRows:
    @settings(max_examples=50, deadline=None)
    @given(
        strata=st.lists(st.integers(0, 4), min_size=1, max_size=60),
        most=st.integers(1, 60),
        seed=st.integers(0, 9),
    )
    def test_every_stratum_gets_its_share(self, strata: list[int], most: int, seed: int) -> None:
        rows, kinds = np.arange(len(strata)) * 3, np.array(strata)
        drawn = stratified_rows(rows, kinds, most=most, stream=numpy_stream(seed, "rows"))
        assert len(drawn) == min(most, len(rows))
        assert (np.diff(drawn) > 0).all()
        assert set(drawn) <= set(rows)
        shares = np.bincount(kinds, minlength=5) * len(drawn) / len(rows)
        assert (np.abs(np.bincount(kinds[drawn // 3], minlength=5) - shares) < 1 + 1e-9).all()

    def test_the_draw_depends_on_the_stream(self) -> None:
        rows, kinds = np.arange(100), np.arange(100) % 3
        first, again, other = (
            stratified_rows(rows, kinds, most=20, stream=numpy_stream(seed, "rows")) for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)
        assert stratified_rows(rows, kinds, most=100, stream=numpy_stream(0, "rows")) is rows
