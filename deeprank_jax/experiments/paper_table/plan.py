"""What the config file of a paper's table says, checked before anything is made."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import re
from typing import Any

import ml_collections

from deeprank_jax import config as config_lib
from deeprank_jax.experiments import plans
from deeprank_jax.experiments.paper_table.rows import TRAINED

_SHARE, _MODE = "sampler.out_of_class", "sampler.mode"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be compared.

    Attributes:
      config: of the dataset and its metrics.
      networks: by name the settings of each; `{other}` stands for the folder of a
        network before it.
      sweep: by name the settings of each run.
      sweep_config: the config file of these.
    """

    config: ml_collections.ConfigDict
    networks: Mapping[str, Mapping[str, Any]]
    sweep: Mapping[str, Mapping[str, Any]]
    sweep_config: pathlib.Path

    def settings(self, name: str, workdir: pathlib.Path) -> dict[str, Any]:
        """Returns a network's settings with the folders in `workdir` filled in."""

        def fill(value: Any) -> Any:
            if not isinstance(value, str):
                return value
            named = lambda match: str(workdir / match[1])
            return re.sub(rf"\{{({'|'.join(self.networks)})\}}", named, value)

        return {key: fill(value) for key, value in self.networks[name].items()}


def read_plan(path: pathlib.Path, values: Sequence[str], *, sweeps: bool) -> Plan:
    """Reads the config file.

    Args:
      path: the file.
      values: NAME=VALUE of every run's config.
      sweeps: whether the sweep is wanted; without, it is empty.

    Raises:
      SystemExit: it lacks something, or a run's settings cannot be.
    """
    found = plans.load_plan(path, ("NETWORKS", "SWEEP", "SWEEP_CONFIG"))
    if found.NETWORKS.keys() != set(TRAINED):
        raise SystemExit(
            f"error: the NETWORKS of {path} are {', '.join(found.NETWORKS) or 'none'}; "
            f"the rows of the table are made of {', '.join(TRAINED)}."
        )
    plan = Plan(
        config=plans.changed(found.get_config(), values),
        networks=found.NETWORKS,
        sweep=found.SWEEP if sweeps else {},
        sweep_config=pathlib.Path(found.SWEEP_CONFIG),
    )
    _check_networks(path, plan, values)
    if sweeps:
        _check_sweep(path, plan, values)
    return plan


def _check_networks(path: pathlib.Path, plan: Plan, values: Sequence[str]) -> None:
    before: list[str] = []
    for name, settings in plan.networks.items():
        where = f"NETWORKS[{name!r}] in {path}"
        _check_settings(where, plan.config, plan.settings(name, pathlib.Path()), values)
        named = re.findall(r"\{(\w+)\}", settings.get("init_from", ""))
        if late := sorted({*named} - {*before}):
            raise SystemExit(
                f"error: {where} starts from {late[0]}, which is not made before it; "
                f"the networks before it are {', '.join(before) or 'none'}."
            )
        before.append(name)


def _check_sweep(path: pathlib.Path, plan: Plan, values: Sequence[str]) -> None:
    config = plans.load_plan(plan.sweep_config, ()).get_config()
    for name, settings in plan.sweep.items():
        where = f"SWEEP[{name!r}] in {path}"
        for key in (_MODE, _SHARE):
            if key not in settings:
                raise SystemExit(f"error: {where} does not say {key}.")
        _check_settings(where, config, settings, values)


def _check_settings(
    where: str,
    config: ml_collections.ConfigDict,
    settings: Mapping[str, Any],
    values: Sequence[str],
) -> None:
    try:
        texts = [f"{key}={value}" for key, value in settings.items()]
        changed = plans.changed(config, [*texts, *values])
        config_lib.check_config(changed)
    except (SystemExit, ValueError) as error:
        text = str(error).removeprefix("error: ")
        raise SystemExit(f"error: {text} It is of {where}, or of --set.") from error
