import pytest

from ebbflow.symbols.frames import FrameKind
from ebbflow.symbols.jit_names import read_name


@pytest.mark.parametrize(
    ("name", "function", "file", "line"),
    [
        ("JS:*handler /srv/app.js:12:20", "handler", "/srv/app.js", 12),
        ("JS:~handler /srv/app.js:12:20", "handler", "/srv/app.js", 12),
        ("LazyCompile:^_load node:internal/modules/cjs:1003:24", "_load", "node:internal/modules/cjs", 1003),
        ("JS:* /srv/a b.js:1:1", "(anonymous)", "/srv/a b.js", 1),
        ("Script:~ /srv/app.js:1:1", "(script)", "/srv/app.js", 1),
        ("JS:*lonely", "lonely", "", 0),
        ("Builtin:ArrayMap", "Builtin:ArrayMap", "", 0),
        ("RegExp:a+ b", "RegExp:a+ b", "", 0),
        ("double J.f(int)", "double J.f(int)", "", 0),
    ],
)  # fmt: skip
def test_names_of_jits_are_taken_apart(name, function, file, line):
    read = read_name(name)
    assert (read.kind, read.function, read.file, read.line) == (FrameKind.JIT, function, file, line)


def test_a_python_trampoline_is_an_interpreted_frame():
    read = read_name("py::Worker.run:/srv/app.py")
    assert (read.kind, read.function, read.file) == (FrameKind.INTERPRETED, "Worker.run", "/srv/app.py")
