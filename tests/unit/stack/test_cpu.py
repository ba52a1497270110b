"""What the processor can do, from what the kernel tells."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from cwm_jupyter import config
from cwm_jupyter.stack import cpu, doctor
from cwm_jupyter.stack.cpu import cpu_features, slow_in_bfloat16

_LAPTOP = "fpu sse4_2 avx avx2"
_SERVER = "fpu sse4_2 avx avx2 avx512f avx512_bf16"


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel's file, of an x86-64 machine."""
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(cpu, "_CPUINFO", file)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return file


def write(file: Path, flags: str) -> None:
    one = f"processor\t: 0\nmodel name\t: avx512f or not\nflags\t\t: {flags}\nbugs\t\t: none\n\n"
    file.write_text(one * 2, encoding="utf-8")


def test_features_are_the_flags_alone(cpuinfo: Path) -> None:
    write(cpuinfo, _LAPTOP)
    assert cpu_features() == set(_LAPTOP.split())


@pytest.mark.parametrize(("flags", "slow"), [(_LAPTOP, True), (_SERVER, False)])
def test_bfloat16_is_slow_without_avx512(cpuinfo: Path, flags: str, slow: bool) -> None:
    write(cpuinfo, flags)
    assert slow_in_bfloat16() is slow


def test_what_is_not_told_is_not_taken_for_missing(
    cpuinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cpu_features() is None  # no such file
    cpuinfo.write_text("processor\t: 0\n", encoding="utf-8")
    assert cpu_features() is None
    write(cpuinfo, _LAPTOP)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert cpu_features() is None
    assert slow_in_bfloat16() is False


@pytest.mark.parametrize(("flags", "level"), [(_LAPTOP, "warn"), (_SERVER, "ok")])
def test_the_doctor_says_what_the_engine_computes_in(
    cpuinfo: Path, monkeypatch: pytest.MonkeyPatch, flags: str, level: str
) -> None:
    write(cpuinfo, flags)
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    monkeypatch.setattr(doctor.environment, "engine_kind", lambda: "cpu")
    found = next(one for one in doctor._platform(config.load()) if one.id == "cpu")
    assert found.level == level
    assert ("AVX2, in float32" in (found.hint or "")) is (level == "warn")
    assert found.figures["avx512f"] is (level == "ok")
