"""What commands share: the global options, and the settings that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ebbflow.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ebbflow.config import Loaded


@dataclass(frozen=True, slots=True)
class Globals:
    """Options before the command: `--config PATH`, and every `--set KEY=VALUE` as it was written."""

    config: Path | None = None
    assignments: tuple[str, ...] = ()

    def flags(self) -> dict[str, str]:
        """Dotted key to text.

        Raises:
            ConfigError: a `--set` without a key and an equals sign.
        """
        pairs = [assignment.partition("=") for assignment in self.assignments]
        for key, sign, value in pairs:
            if not key or not sign:
                raise ConfigError(f"--set {key}{sign}{value}: not KEY=VALUE", hint="for example --set log.level=debug")
        return {key: value for key, _, value in pairs}


def load_config(ctx: typer.Context, flags: Mapping[str, object] | None = None) -> Loaded:
    """The settings for a command: defaults, file, environment, `--set`, then the command's own `flags`.

    Args:
        ctx: the command's context; the global options are in its `obj`.
        flags: dotted key to value of the command's own options; None values are left out.

    Raises:
        ConfigError: names the key and the source of what is wrong.
    """
    from ebbflow.config import load

    options = ctx.obj if isinstance(ctx.obj, Globals) else Globals()
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    return load(options.config, flags={**options.flags(), **given})
