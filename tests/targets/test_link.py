"""Linking: which command, and whether what it made fits the device. No emulator and no cross compiler is needed here."""

import subprocess
from dataclasses import replace

import pytest
from refusals import refusal

from deburr.targets import link
from deburr.targets.elf import Elf
from deburr.targets.target import find

HERE = find("x86-64-v3")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library of this machine that takes memcpy and sqrt from the C library."""
    folder = tmp_path_factory.mktemp("library")
    body = "void f(char *a, char *b, int n, double *x) { memcpy(a, b, n); *x = pow(*x, *x); }"
    (folder / "code.c").write_text(f"#include <string.h>\n#include <math.h>\n{body}\n")
    subprocess.run(["cc", "-c", "-O1", "-fPIC", "-o", folder / "code.o", folder / "code.c"], check=True)
    link.link([link.find_host()], [folder / "code.o"], folder / "model.so")
    return folder / "model.so"


def test_what_a_library_says_of_itself(library):
    found = Elf.read(library)
    assert (found.architecture, found.needed) == ("x86_64", ("libm.so.6", "libc.so.6"))
    assert tuple(map(int, found.glibc.split("."))) >= (2, 14)
    link.check(library, HERE)


def test_a_library_that_does_not_fit(library, tmp_path):
    hint = "; pip install 'deburr[cross]' brings a linker"
    assert refusal(link.check, library, find("raspberry-pi/5")) == (
        "error[E406]: the library does not fit the device, model.so for target 'raspberry-pi/5': it is for x86_64, "
        "the device is aarch64" + hint
    )
    old = replace(HERE, glibc="2.3")
    assert f"it needs glibc {Elf.read(library).glibc}, the device has 2.3{hint}" in refusal(link.check, library, old)
    assert f"it needs libm.so.6{hint}" in refusal(link.check, library, HERE, frozenset({"libc.so.6"}))
    assert "it is no archive of Mach-O object files for arm64" in refusal(link.check, library, find("apple/m1"))
    (tmp_path / "model.so").write_bytes(b"nothing")
    assert refusal(link.check, tmp_path / "model.so", HERE).startswith("error[E406]: not a library, ")


def test_the_linker_that_fails_is_named(tmp_path):
    (tmp_path / "code.o").write_bytes(b"nothing")
    message = refusal(link.link, [link.find_host()], [tmp_path / "code.o"], tmp_path / "model.so")
    assert message.startswith(f"error[E403]: linking failed, {link.find_host()}: ")


def test_this_machine_links_for_its_own_kind():
    assert link.find(HERE) == (link.find_host(),)


def test_other_machines_take_zig_or_debian(monkeypatch):
    pi = find("raspberry-pi/4b")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert link.find(pi)[1:] == ("-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.31")
    assert link.find(replace(pi, glibc=""))[-1] == f"aarch64-linux-gnu.{link.DEFAULT_GLIBC}"
    assert link.find(find("apple/m1"))[2:] == ("ziglang", "ar", "--format=darwin", "rcs")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if name == "aarch64-linux-gnu-gcc" else None)
    assert link.find(pi) == ("/usr/bin/aarch64-linux-gnu-gcc",)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert refusal(link.find, pi) == (
        "error[E405]: no linker for aarch64, target 'raspberry-pi/4b': neither ziglang nor aarch64-linux-gnu-gcc is installed; "
        "pip install 'deburr[cross]'"
    )


def test_a_linker_of_ones_own():
    assert link.find(find("android/pixel-6"), "cc") == (link.find(HERE, "cc"))
    assert refusal(link.find, find("android/pixel-6")).startswith(
        "error[E405]: no linker for Android, target 'android/pixel-6': "
    )
    assert refusal(link.find, HERE, "no-such-cc") == (
        "error[E405]: no such linker, --linker no-such-cc: it is neither on the PATH nor an executable file"
    )
