"""Compiles, verifies, loads and unloads one BPF program file through BCC.

BCC writes what clang and the verifier say to file descriptor 2, and raises exceptions without it. Both are caught here
and become one error with the lines that matter (ebbflow/kernel/refusal.py). Attaching is ebbflow/kernel/probes.py.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ebbflow.errors import DependencyError, KernelError, PermissionDenied, ProbeNotFound
from ebbflow.kernel import shared_tables
from ebbflow.kernel.attach_points import nearby
from ebbflow.kernel.capabilities import read_capabilities, require_for_loading
from ebbflow.kernel.compile_key import compile_key, machine_key
from ebbflow.kernel.objects import LoadedMap, LoadedProgram, fields_of, map_of, program_of
from ebbflow.kernel.probes import Probes, UsdtProbe
from ebbflow.kernel.refusal import refusal
from ebbflow.kernel.source import EXTERN_PREFIX, SourceText, read_source
from ebbflow.kernel.system_calls import ProgramType


def _bcc() -> Any:
    try:
        import bcc  # noqa: PLC0415 - Debian's package, absent from most development machines
    except ImportError as error:
        raise DependencyError(
            f"BCC's Python module cannot be imported: {error}",
            hint="run `make setup` (Debian's python3-bpfcc, in a venv of /usr/bin/python3)",
        ) from None
    lib = bcc.lib
    # BCC's module declares all but these.
    lib.bpf_num_tables.restype, lib.bpf_num_tables.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    lib.bpf_table_name.restype, lib.bpf_table_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_size_t]
    return bcc


@contextmanager
def _stderr_to(log: Any) -> Iterator[None]:
    """Send file descriptor 2 to a file: the messages come from C."""
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)


class _UsdtArguments:
    """What BCC asks of a USDT context: it writes the functions that read arguments. It must not attach."""

    def __init__(self, context: Any, binary: Path) -> None:
        self._context = context
        self.binary = binary

    def get_context(self) -> Any:
        return self._context.get_context()

    def attach_uprobes(self, _bpf: Any, _ignore_pid: Any) -> None:
        """Nothing: `probes` attaches."""


def _usdt_context(bcc: Any, probe: UsdtProbe) -> _UsdtArguments:
    path = str(probe.binary) if probe.binary else None
    try:
        context = bcc.USDT(pid=probe.pid if probe.pid > 0 else None, path=path)
        context.enable_probe(f"{probe.provider}:{probe.name}", probe.function)
    except Exception:  # noqa: BLE001 - BCC's own, without a type for what went wrong
        hint = (
            "" if probe.pid > 0 else "arguments of a probe with a semaphore can be read in one process only: give a pid"
        )
        raise ProbeNotFound(
            f"no USDT probe {probe.provider}:{probe.name} whose arguments can be read in {path or probe.pid}", hint=hint
        ) from None
    return _UsdtArguments(context, Path(os.fsdecode(context.enumerate_active_probes()[0][0])))


class Program:
    """One compiled source file with its maps and attached functions.

    What says by its name where it belongs (TRACEPOINT_PROBE) is attached at once; `probes` attaches the rest.

    Args:
        source: the .c file; headers beside it are put in place.
        definitions: names and values passed as -D.
        usdt: USDT probes whose arguments the program reads (bpf_usdt_readarg); attached at once, too.

    Raises:
        PermissionDenied, DependencyError, ProgramRefused, ProbeNotFound, KernelError
    """

    def __init__(
        self,
        source: Path,
        definitions: Mapping[str, int],
        *,
        usdt: Sequence[UsdtProbe] = (),
    ) -> None:
        require_for_loading(read_capabilities("thread-self").effective)
        self.source = source
        self._bcc = _bcc()
        self._text: SourceText = read_source(source)
        self._flags = [f"-I{source.parent.resolve()}", "-Wno-everything"]
        self._flags += [f"-D{name}={value}" for name, value in definitions.items()]
        self._flags += shared_tables.type_flags()
        self._types: dict[str, ProgramType] = {}
        self._usdt = [_usdt_context(self._bcc, probe) for probe in usdt]
        self._bpf: Any = self._compile()
        self.probes = Probes(self)
        try:
            self._share_tables()
            self.probes.attach_found()
            for probe, context in zip(usdt, self._usdt, strict=True):
                self.probes.attach_usdt(context.binary, probe.provider, probe.name, probe.function, pid=probe.pid)
        except BaseException:
            self.close()
            raise

    def _compile(self) -> Any:
        bpf = self._bcc.BPF.__new__(self._bcc.BPF)
        bpf._trace_autoload = lambda: None  # noqa: SLF001 - `probes` does it, and knows of it
        try:
            text, options = self._text.text.encode(), {"cflags": self._flags, "usdt_contexts": self._usdt}
            self._call("compile", "", bpf.__init__, text=text, **options)
        finally:
            # Or it is held until the process ends. Nothing is lost: descriptors close by themselves.
            atexit.unregister(bpf.cleanup)
        return bpf

    def _call(self, step: str, function: str, call: Any, *args: Any, **kwargs: Any) -> Any:
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            try:
                with _stderr_to(log):
                    return call(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - BCC raises bare Exception
                log.seek(0)
                name = f"{self.source.name}: {function}" if function else self.source.name
                raise refusal(self._text, name, step, log.read(), str(error)) from None

    def _share_tables(self) -> None:
        externs = [name.removeprefix(EXTERN_PREFIX) for name in self._functions() if name.startswith(EXTERN_PREFIX)]
        tables = self._tables()
        shared_tables.join(tables, externs)
        shared_tables.publish(self, {name: fd for name, fd in tables.items() if name not in externs})

    def functions(self) -> list[str]:
        """Names of all functions of the program file that can be attached."""
        return [name for name in self._functions() if not name.startswith(EXTERN_PREFIX)]

    def _functions(self) -> list[str]:
        lib, module = self._bcc.lib, self._bpf.module
        return [lib.bpf_function_name(module, number).decode() for number in range(lib.bpf_num_functions(module))]

    def _tables(self) -> dict[str, int]:
        """Names of all tables and their descriptors."""
        lib, module = self._bcc.lib, self._bpf.module
        names = [lib.bpf_table_name(module, number) for number in range(lib.bpf_num_tables(module))]
        return {name.decode(): lib.bpf_table_fd(module, name) for name in names}

    def load(self, function: str, kind: ProgramType) -> int:
        """Verify and load a function, once: its descriptor.

        Raises:
            ProgramRefused: the verifier said no.
            ProbeNotFound: there is no such function.
            KernelError: it is loaded already, as another type.
        """
        if function not in self.functions():
            raise ProbeNotFound(
                f"{self.source.name} has no function {function}", hint=nearby(function, self.functions())
            )
        if self._types.setdefault(function, kind) != kind:
            raise KernelError(
                f"{self.source.name}: {function} is loaded as {self._types[function].name}, and cannot be {kind.name}",
                hint="a function serves one type of probe: write another that calls the same code",
            )
        try:
            return int(self._call("load", function, self._bpf.load_func, function.encode(), int(kind)).fd)
        except BaseException:
            del self._types[function]
            raise
        finally:
            atexit.unregister(self._bpf.donothing)

    @property
    def key(self) -> str:
        """What the compiled code depends on; see ebbflow/kernel/compile_key.py."""
        return compile_key(self._text.text, self._flags, machine_key(self._bcc))

    def programs(self) -> list[LoadedProgram]:
        """The functions that are loaded, with how often and how long they ran while the kernel counted."""
        return [program_of(fields_of(function.fd)) for function in self._bpf.funcs.values()]

    def maps(self) -> list[LoadedMap]:
        """All maps, shared ones too, with what they take."""
        return [map_of(fields_of(fd)) for fd in self._tables().values()]

    def set_tail(self, table: str, index: int, function: str, kind: ProgramType = ProgramType.RAW_TRACEPOINT) -> None:
        """Make `function` the target of tail calls to `index` of a program array; of the caller's type."""
        self._bpf[table.encode()][ctypes.c_int(index)] = ctypes.c_int(self.load(function, kind))

    def map(self, name: str) -> Any:
        """BCC's table object."""
        return self._bpf[name.encode()]

    def recursion_misses(self) -> int:
        """Times a function of this program was skipped because one already ran on that CPU."""
        fields = (fields_of(function.fd) for function in self._bpf.funcs.values())
        return sum(int(one.get("recursion_misses", 0)) for one in fields)

    def detach(self) -> None:
        """Take every function off its hook; maps can still be read."""
        self.probes.detach_all()

    def close(self) -> None:
        """Detach and unload everything; the kernel frees it when the last descriptor goes."""
        self.detach()
        shared_tables.withdraw(self)
        self._bpf.cleanup()
        self._bpf.tables.clear()
        self._usdt.clear()


def tracepoint_has(category: str, event: str, field: str, tracefs: Path = Path("/sys/kernel/tracing")) -> bool:
    """Whether this kernel's tracepoint has that field.

    Raises:
        KernelError: the tracepoint is not there, or tracefs is not mounted.
    """
    path = tracefs / "events" / category / event / "format"
    try:
        text = path.read_text("ascii")
    except PermissionError:
        raise PermissionDenied(f"{path} cannot be read", hint="run it as root: sudo ebbflow …") from None
    except OSError:
        raise KernelError(
            f"tracepoint {category}:{event} is not in {tracefs}",
            hint=f"mount -t tracefs tracefs {tracefs}",
        ) from None
    return f" {field};" in text
