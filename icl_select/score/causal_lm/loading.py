"""Loading the weights of a causal language model, with an adapter merged in, onto a device."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from icl_select._models import Source, failures, start_torch
from icl_select._optional import require
from icl_select._quiet import without_bars
from icl_select.errors import MissingDependencyError, ModelError

__all__ = ["installed", "load_causal_lm"]

_PURPOSE = "the Transformers engine"


def load_causal_lm(
    source: Source, *, device: str | None, dtype: str, attention: str | None, lora: Path | None, threads: int | None
) -> tuple[Any, str]:
    """Return the model in evaluation mode, and the device that it is on.

    Raises
    ------
    MissingDependencyError
        If torch, transformers or, with an adapter, peft is not installed.
    ModelError
        If model or adapter cannot be loaded, or the device is not there.
    """
    torch, chosen = start_torch(device, threads, extra="models", purpose=_PURPOSE)
    library = require("transformers", extra="models", purpose=_PURPOSE)
    peft = None if lora is None else require("peft", extra="lora", purpose="a LoRA adapter")
    options: dict[str, Any] = {"trust_remote_code": False, "dtype": getattr(torch, dtype)}
    if attention is not None:
        options["attn_implementation"] = attention
    if not source.local:
        options["revision"] = source.revision
    with failures(source.name, source.revision, local=source.local), without_bars():
        model = library.AutoModelForCausalLM.from_pretrained(source.location, **options)
    if peft is not None:
        with failures(f"{source.name} with the adapter {lora}", None, local=True):
            model = peft.PeftModel.from_pretrained(model, str(lora)).merge_and_unload()
    try:
        return model.to(chosen).eval(), chosen
    except RuntimeError as exc:
        raise ModelError(
            f"the model {source} does not go onto {chosen!r} ({str(exc).splitlines()[0].rstrip('.')}). Pass "
            "dtype='bfloat16', another device, or a smaller model."
        ) from exc


def installed(*packages: str) -> dict[str, str]:
    """Versions of packages, without importing them.

    Raises
    ------
    MissingDependencyError
    """
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError as exc:
            extra = "lora" if name == "peft" else "models"
            raise MissingDependencyError(
                f"{_PURPOSE} needs the package {name!r}, which is not installed. "
                f"Install it with: pip install 'icl-select[{extra}]'",
                name=name,
            ) from exc
    return found
