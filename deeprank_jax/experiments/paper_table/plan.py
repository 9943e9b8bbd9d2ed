"""The plan of a paper's table, checked before any work starts."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import re
from types import ModuleType

import ml_collections

from deeprank_jax.errors import ConfigError
from deeprank_jax.experiments import plans
from deeprank_jax.experiments.paper_table.rows import (
    ROWS,
    TRAINED,
    Description,
    further_row,
)
from deeprank_jax.experiments.runs import Settings

_SHARE, _MODE = "sampler.out_of_class", "sampler.mode"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The networks and the sweep of a table.

    Attributes:
      config: Config of the dataset and its metrics.
      networks: Settings of each network by name; `{other}` stands for the folder of a
        network trained before it.
      further: Descriptions of the networks that are not the paper's, by name.
      sweep: Settings of each run of the sweep by name.
      sweep_config: Path of the sweep's config file.
    """

    config: ml_collections.ConfigDict
    networks: Mapping[str, Settings]
    further: Mapping[str, Description]
    sweep: Mapping[str, Settings]
    sweep_config: pathlib.Path

    def settings(self, name: str, workdir: pathlib.Path) -> Settings:
        """Returns a network's settings with the folders in `workdir` filled in."""

        def fill(value: object) -> object:
            if not isinstance(value, str):
                return value
            named = lambda match: str(workdir / match[1])
            return re.sub(rf"\{{({'|'.join(self.networks)})\}}", named, value)

        return {key: fill(value) for key, value in self.networks[name].items()}


def read_plan(path: pathlib.Path, values: Sequence[str], *, sweeps: bool) -> Plan:
    """Reads and checks the config file.

    Args:
      path: Path of the file.
      values: `KEY=VALUE` overrides of every run's config.
      sweeps: False leaves out the sweep, which is then empty.

    Raises:
      ConfigError: The file lacks a name, or the settings of a run are not valid.
    """
    module = plans.load_plan(path, ("NETWORKS", "SWEEP", "SWEEP_CONFIG"))
    further = _read_further_rows(path, module)
    if module.NETWORKS.keys() != {*TRAINED, *further}:
        raise ConfigError(
            f"the NETWORKS of {path} are {', '.join(module.NETWORKS) or 'none'}; "
            f"the rows of the table are made of {', '.join(TRAINED)}, and each further "
            "network has its title and a few words in FURTHER_ROWS"
            + (f", which has {', '.join(further)}." if further else ".")
        )
    plan = Plan(
        config=plans.override(module.get_config(), values),
        networks=module.NETWORKS,
        further=further,
        sweep=module.SWEEP if sweeps else {},
        sweep_config=pathlib.Path(module.SWEEP_CONFIG),
    )
    _check_networks(path, plan, values)
    if sweeps:
        _check_sweep(path, plan, values)
    return plan


def _read_further_rows(
    path: pathlib.Path, module: ModuleType
) -> dict[str, Description]:
    """Returns the descriptions of the rows that are not the paper's."""
    further = {}
    for name, texts in getattr(module, "FURTHER_ROWS", {}).items():
        where = f"FURTHER_ROWS[{name!r}] in {path}"
        if name in ROWS:
            raise ConfigError(
                f"{where} has the name of a row of the paper's table; choose another."
            )
        if not isinstance(texts, Sequence) or isinstance(texts, str) or len(texts) != 2:
            raise ConfigError(
                f"{where} is {texts!r}; give a title and a few words, e.g. "
                '("SupCon", "groups of four").'
            )
        further[name] = further_row(*texts)
    return further


def _check_networks(path: pathlib.Path, plan: Plan, values: Sequence[str]) -> None:
    before: list[str] = []
    for name, settings in plan.networks.items():
        where = f"NETWORKS[{name!r}] in {path}"
        config = plans.check_settings(
            where, plan.config, plan.settings(name, pathlib.Path()), values
        )
        named = re.findall(r"\{(\w+)\}", str(settings.get("init_from", "")))
        if late := sorted({*named} - {*before}):
            raise ConfigError(
                f"{where} starts from {late[0]}, which is not trained before it; "
                f"the networks before it are {', '.join(before) or 'none'}."
            )
        if name == "softmax" and config.loss.name != "cross_entropy":
            raise ConfigError(
                f"{where} learns by {config.loss.name!r}, and the rows of softmax are "
                'made of the logits of "cross_entropy"; set loss to that.'
            )
        before.append(name)


def _check_sweep(path: pathlib.Path, plan: Plan, values: Sequence[str]) -> None:
    config = plans.load_plan(plan.sweep_config, ()).get_config()
    for name, settings in plan.sweep.items():
        where = f"SWEEP[{name!r}] in {path}"
        for key in (_MODE, _SHARE):
            if key not in settings:
                raise ConfigError(f"{where} lacks {key}; give it a value.")
        plans.check_settings(where, config, settings, values)
