"""Names as their authors wrote them: C++ and Rust; every other name is its own."""

from __future__ import annotations

from collections import Counter, OrderedDict

from ebbflow.symbols.cxx_names import CxxNames
from ebbflow.symbols.rust_names import rust_name

_MAX_KNOWN = 1 << 15
_PLT = "@plt"


class Demangler:
    """Demangles with a bounded cache; `close` ends what it started."""

    def __init__(self, troubles: Counter[str], *, max_known: int = _MAX_KNOWN) -> None:
        self._cxx = CxxNames(troubles)
        self._max_known = max_known
        self._known: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def demangle(self, name: str) -> str:
        """A symbol's name demangled; `FUNCTION@plt` keeps its ending."""
        if not name.startswith(("_Z", "_R")):
            return name
        if name not in self._known:
            self._known[name] = self._read(name)
            if len(self._known) > self._max_known:
                self._known.popitem(last=False)
        return self._known[name]

    def _read(self, name: str) -> str:
        bare = name.removesuffix(_PLT)
        return (rust_name(bare) or self._cxx.demangle(bare)) + (_PLT if bare != name else "")

    def close(self) -> None:
        self._cxx.close()
