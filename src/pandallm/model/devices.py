"""Devices that training may run on: peak rates, memory, bandwidth, a guessed price (no torch)."""

import re
from importlib import resources
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from pandallm.errors import BadInput
from pandallm.spec import Spec, nearest


class DeviceSpec(Spec):
    """One device: dense peak rates in 1e12 operations per second, memory in 1e9 bytes, bandwidth in 1e9 bytes per second."""

    bf16_tflops: float = Field(gt=0)
    fp32_tflops: float = Field(gt=0)
    memory_gb: float = Field(gt=0)
    bandwidth_gb_s: float = Field(gt=0)
    usd_per_hour: float | None = Field(None, ge=0)


#: Further devices of whoever uses this store: read by every plan and run where the file is there.
OWN_DEVICES = "devices.yaml"


class UnknownGpu(BadInput):
    """This machine's GPU is in no table of devices."""


def devices(file: Path | None = None, store: Path | None = None) -> dict[str, DeviceSpec]:
    """The shipped devices by name; those of OWN_DEVICES in the folder `store` and of `file` (YAML of the same form) go before them.

    Raises BadInput for a file that is missing or not such a table.
    """
    text = (resources.files("pandallm.model") / "devices.yaml").read_text(encoding="utf-8")
    table = _parse(text, "devices.yaml")
    own = [store / OWN_DEVICES] if store is not None and (store / OWN_DEVICES).is_file() else []
    for given in [*own, *([file] if file is not None else [])]:
        if not given.is_file():
            raise BadInput(f"Device table {given} does not exist.")
        table |= _parse(given.read_text(encoding="utf-8", errors="replace"), str(given))
    return table


def own_line(name: str) -> str:
    """What to write into a table of one's own for a device of this name."""
    return f'"{name}": {{bf16_tflops: .., fp32_tflops: .., memory_gb: .., bandwidth_gb_s: ..}}'


def _parse(text: str, where: str) -> dict[str, DeviceSpec]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise BadInput(f"{where} is not YAML ({str(e).splitlines()[0]}).") from None
    if not isinstance(content, dict):
        raise BadInput(f"{where} must map names of devices to their numbers, as NAME: {{bf16_tflops: 312, ...}}.")
    table = {}
    for name, numbers in content.items():
        if not isinstance(numbers, dict):
            raise BadInput(f"{where}: {name} must hold the device's numbers; write `{own_line(str(name))}`.")
        try:
            table[str(name)] = DeviceSpec.model_validate(numbers)
        except ValidationError as e:
            first = e.errors()[0]
            field = ".".join(map(str, (name, *first["loc"])))
            raise BadInput(f"{where}: {field}: {first['msg']}.") from None
    return table


def device_of_gpu(name: str, table: dict[str, DeviceSpec]) -> str | None:
    """The table's name of a GPU that its driver calls `NVIDIA A100-SXM4-80GB`; the smallest of several sizes where it says none.

    An entry of the driver's very name goes first. None where the table has none of it.
    """
    if exact := next((known for known in table if known.upper() == name.upper()), None):
        return exact
    words = re.split(r"[\s-]+", name.upper().replace("RTX ", "RTX"))
    known = sorted((k for k in table if k.upper().split("-")[0] in words), key=lambda k: table[k].memory_gb)
    sized = [k for k in known if f"{k.upper().rpartition('-')[2]}B" in words]
    return next(iter(sized or known), None)


def parse_devices(text: str, table: dict[str, DeviceSpec]) -> tuple[int, str, DeviceSpec]:
    """`16xA100-80G` or `A100-80G`: how many, name, numbers. Raises BadInput for an unknown name, with the nearest one."""
    match = re.fullmatch(r"(?:([1-9][0-9]*)x)?(.+)", text.strip())
    name = match[2] if match else text
    by_name = {known.lower(): known for known in table}
    if match is None or name.lower() not in by_name:
        raise BadInput(
            f"Unknown device '{name}'.{nearest(name.upper(), list(table))} Write it as 16xA100-80G; a device of your own goes into a "
            "YAML file for --devices."
        )
    known = by_name[name.lower()]
    return int(match[1] or 1), known, table[known]
